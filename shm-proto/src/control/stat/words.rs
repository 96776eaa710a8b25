//! The words in `stat` and `list`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::control::words::{travels_as_text, words};
use crate::ring::geometry::OnFull;

words! {
    /// How a channel hands its messages over.
    pub enum Mode {
        /// A ring: every reader gets every message.
        Ring = "ring",
        /// One message at a time, which one reader acknowledges.
        Handoff = "handoff",
    }
}

words! {
    /// What a peer may do with a channel.
    pub enum Right {
        /// Attach as a reader.
        Read = "read",
        /// Borrow the writer role.
        Write = "write",
        /// Resize the channel and evict readers.
        Admin = "admin",
    }
}

words! {
    /// What kind of writer holds the role.
    pub enum WriterRole {
        /// A source of the daemon's own.
        Source = "source",
        /// A program that has borrowed the role.
        Lent = "lent",
    }
}

words! {
    /// Whether a writer shows signs of life.
    pub enum WriterState {
        /// It shows signs of life, or no sign is due.
        Active = "active",
        /// It has shown no sign of life for the channel's `stalled_after`.
        Stalled = "stalled",
    }
}

words! {
    /// What a reader is doing.
    pub enum ReaderState {
        /// It has not chosen its start yet.
        Joining = "joining",
        /// It is at a message, or on its way to the next one.
        Reading = "reading",
        /// It sleeps until there is a message.
        Sleeping = "sleeping",
        /// It has shown no sign of life for the channel's `stalled_after`.
        Stalled = "stalled",
        /// It was evicted, and has not detached yet.
        Evicted = "evicted",
    }
}

words! {
    /// What kind of source feeds a channel.
    pub enum SourceKind {
        /// None: programs write.
        None = "none",
        /// The daemon's standard input.
        Stdin = "stdin",
        /// A FIFO.
        Fifo = "fifo",
        /// A stream socket.
        Unix = "unix",
        /// A socket that keeps packets apart.
        UnixSeqpacket = "unix-seqpacket",
        /// A child's standard output.
        Exec = "exec",
        /// A file that grows.
        Tail = "tail",
    }
}

/// What happens when the ring is full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum FullPolicy {
    /// One of the policies that this version knows.
    Known(OnFull),
    /// A word that this version does not know, from a newer daemon.
    Other(String),
}

impl From<OnFull> for FullPolicy {
    fn from(policy: OnFull) -> Self {
        FullPolicy::Known(policy)
    }
}

impl fmt::Display for FullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FullPolicy::Known(policy) => policy.fmt(f),
            FullPolicy::Other(word) => f.pad(word),
        }
    }
}

/// Who holds the writer role, in a line of `list`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterName {
    /// No writer: `none`.
    Nobody,
    /// A source of the daemon's own: its kind. A word that this version does not know is one of these.
    Source(SourceKind),
    /// A program that has borrowed the role: `camd (pid 4711, user video)`.
    Program {
        /// Program name.
        program: String,
        /// Process number.
        pid: u32,
        /// User name, or number where there is no name.
        user: String,
    },
}

impl fmt::Display for WriterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriterName::Nobody => f.write_str("none"),
            WriterName::Source(kind) => kind.fmt(f),
            WriterName::Program { program, pid, user } => write!(f, "{program} (pid {pid}, user {user})"),
        }
    }
}

impl From<String> for WriterName {
    fn from(text: String) -> Self {
        let program = || {
            // From the end: a program may have any name.
            let (program, rest) = text.strip_suffix(')')?.rsplit_once(" (pid ")?;
            let (pid, user) = rest.split_once(", user ")?;
            let (program, user) = (program.to_owned(), user.to_owned());
            Some(WriterName::Program { program, pid: pid.parse().ok()?, user })
        };
        // "pid 07" would be shown as another text than was sent.
        match program().filter(|name| name.to_string() == text) {
            Some(name) => name,
            None if text == "none" => WriterName::Nobody,
            None => WriterName::Source(text.into()),
        }
    }
}

travels_as_text!(WriterName);
