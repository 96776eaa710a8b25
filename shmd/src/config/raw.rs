//! The configuration as written: every key optional, nothing interpreted, each value with its place.

use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, SeqAccess, Visitor};
use shm_proto::{Bytes, OnFull};
use toml::Spanned;

use super::origin::{Located, Origin};

/// The word for `mode` that makes a channel a handoff.
pub(super) const HANDOFF: &str = "handoff";

/// Names of users and groups: a list, or one text with commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;
        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of names such as [\"alice\", \"@staff\", \"*\"]")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Names, E> {
                Ok(Names(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_any(NamesVisitor)
    }
}

/// A time as text. A bare number is refused here, where the error can say what it lacks; only 0 needs no unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) String);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TimeVisitor;
        impl Visitor<'_> for TimeVisitor {
            type Value = Time;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time with its unit in quotes, such as \"500ms\", \"30s\" or \"5m\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Time, E> {
                Ok(Time(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Time, E> {
                match number {
                    0 => Ok(Time("0".to_owned())),
                    _ => Err(E::custom(format!("{number} has no unit; write \"{number}s\" or \"{number}ms\""))),
                }
            }
        }
        deserializer.deserialize_any(TimeVisitor)
    }
}

/// Declares a table twice, as serde reads it and with places, so that its keys are listed once.
macro_rules! table {
    ($(#[$meta:meta])* $raw:ident $(+ $tables:ident: $element:ty)?, $located:ident {
        $($(#[$doc:meta])* $key:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct $located {
            $($(#[$doc])* pub(crate) $key: Option<Located<$type>>,)*
        }

        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $raw {
            $($key: Option<Spanned<$type>>,)*
            $(#[serde(default)] pub(super) $tables: Vec<Spanned<$element>>,)?
        }

        impl $raw {
            /// The same values with `origin(bytes of the text)` for each.
            pub(super) fn locate(self, origin: &dyn Fn(Range<usize>) -> Origin) -> $located {
                $located {
                    $($key: self.$key.map(|v| Located { origin: origin(v.span()), value: v.into_inner() }),)*
                }
            }
        }

        impl $located {
            /// Every key of the table.
            pub(super) const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// The types of their values, in the same order.
            #[cfg(test)]
            pub(super) const TYPES: &'static [&'static str] = &[$(stringify!($type)),*];

            /// Takes over what `above` has.
            pub(super) fn overlay(&mut self, above: Self) {
                $(if above.$key.is_some() { self.$key = above.$key; })*
            }
        }
    };
}

table! {
    /// The keys of a file outside `[[channel]]`.
    RawFile + channel: RawChannel, Top {
        /// Directory of socket and lock file.
        runtime_dir: String,
        /// First part of the objects' names.
        prefix: String,
        /// Log level.
        log: String,
        /// Most connections.
        max_clients: u32,
        /// Operations kept.
        log_entries: u32,
        /// Who may make channels at run time.
        create: Names,
        /// Most of these channels.
        max_created: u32,
        /// Most memory that they may come to take.
        max_created_memory: Bytes,
        /// Directory for what outlives the daemon.
        state_dir: String,
    }
}

table! {
    /// The keys of one `[[channel]]`.
    RawChannel, Channel {
        /// Channel name.
        name: String,
        /// Capacity at the start.
        capacity: Bytes,
        /// Smallest capacity.
        min: Bytes,
        /// Largest capacity.
        max: Bytes,
        /// Largest message.
        max_message: Bytes,
        /// Alignment of payloads in bytes.
        align: u32,
        /// Policy when full.
        on_full: OnFull,
        /// Most readers.
        max_readers: u32,
        /// Patience with a reader that holds the channel up.
        evict_after: Time,
        /// Time of low use before memory is given back.
        shrink_after: Time,
        /// Patience with a peer that shows no sign of life.
        stalled_after: Time,
        /// Acknowledged publishing.
        ack: bool,
        /// Longest wait for acknowledgement.
        ack_timeout: Time,
        /// Readers to wait for.
        wait_readers: u32,
        /// Messages have publish times.
        timestamps: bool,
        /// Memory is entered into page tables when it is mapped.
        prefault: bool,
        /// How messages are encoded.
        content: String,
        /// Name of their schema.
        schema: String,
        /// The schema's language.
        schema_encoding: String,
        /// The schema.
        schema_text: String,
        /// The file that has it.
        schema_file: String,
        /// Group of the segment.
        group: String,
        /// `ring` or `handoff`.
        mode: String,
        /// Permission bits of the objects, octal.
        permissions: String,
        /// Handoff: name of the segment.
        segment: String,
        /// Handoff: name of the semaphore that the writer posts.
        avail: String,
        /// Handoff: name of the semaphore that the reader posts.
        done: String,
        /// Who may read.
        read: Names,
        /// Who may write.
        write: Names,
        /// Who may administer.
        admin: Names,
        /// What feeds the channel.
        source: String,
        /// How the source is cut into messages.
        framing: String,
        /// Messages of the source end with their delimiter.
        keep_delimiter: bool,
        /// How long the beginning of a chunk waits for the rest.
        flush: Time,
    }
}

/// The name of a channel that was given none.
pub(super) const DEFAULT_NAME: &str = "main";

impl Channel {
    /// The name that it has, written or not.
    pub(super) fn name(&self) -> &str {
        self.name.as_ref().map_or(DEFAULT_NAME, |name| &name.value)
    }
}
