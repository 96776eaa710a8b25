//! What the daemon is told to do: files, environment and command line become one checked [`Config`].
//!
//! ```text
//! files -> raw -> load (merge, in order of precedence) -> check (defaults, bounds) -> Config -> show (--check)
//! ```

mod check;
mod content;
mod created;
mod creation;
mod handoff;
mod load;
mod memory;
mod origin;
mod raw;
mod show;
mod sizes;
mod source;
#[cfg(test)]
mod tests;
mod typed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use shm_proto::OnFull;
use shm_proto::internal::framing::Framing;
use shm_proto::internal::handoff::Names;
use shm_proto::{ChannelName, Prefix};

pub(crate) use check::MOST_READERS;
pub(crate) use content::Declared;
pub(crate) use created::{Created, created};
pub(crate) use creation::Creation;
pub(crate) use load::{Given, Setting};
pub(crate) use origin::{Error, Located, Origin};
pub(crate) use show::{list, show, values};
pub(crate) use source::{CommandLine, Packets, SourceKind};

use crate::access::Access;
use crate::host::Host;

/// Every key of a channel.
pub(crate) fn channel_keys() -> &'static [&'static str] {
    raw::Channel::KEYS
}

/// Reads and checks the configuration.
///
/// # Errors
/// [`Error`] names the file and line, flag or variable at fault.
pub(crate) fn load(given: &Given, host: &Host) -> Result<Config, Error> {
    check::check(load::load(given)?, host)
}

/// Everything the daemon needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Directory of the control socket and the lock file, absolute.
    pub(crate) runtime_dir: PathBuf,
    /// First part of every shared memory object's name.
    pub(crate) prefix: Prefix,
    /// What goes to the log.
    pub(crate) log: LevelFilter,
    /// Most connections to the control socket at a time.
    pub(crate) max_clients: u32,
    /// How many operations the daemon remembers.
    pub(crate) log_entries: u32,
    /// The rules for channels that are made at run time.
    pub(crate) creation: Creation,
    /// Directory for what outlives the daemon, absolute; `None` if nothing can be kept.
    pub(crate) state_dir: Option<PathBuf>,
    /// At least one; no two of one name, or fed from the same standard input, FIFO or socket.
    pub(crate) channels: Vec<ChannelConfig>,
    /// End when stdin has ended and its readers have read everything.
    pub(crate) exit_on_eof: bool,
    /// The files that were read, in order.
    pub(crate) files: Vec<PathBuf>,
}

/// One channel, checked. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChannelConfig {
    /// Its name, unique in the configuration.
    pub(crate) name: ChannelName,
    /// Capacity at the start; whole pages, from `min` to `max`.
    pub(crate) capacity: u64,
    /// Smallest capacity; whole pages, at least one.
    pub(crate) min: u64,
    /// Largest capacity; whole pages.
    pub(crate) max: u64,
    /// Largest message; such a message fits into `max`.
    pub(crate) max_message: u64,
    /// Alignment of payloads: a power of two from 8 to 4096.
    pub(crate) align: u32,
    /// What happens when the ring is full and cannot grow.
    pub(crate) on_full: OnFull,
    /// Most readers at a time, from 1 to 1024.
    pub(crate) max_readers: u32,
    /// How long a reader may hold up a lossless channel; `None` for no limit.
    pub(crate) evict_after: Option<Duration>,
    /// How long use must be low before memory is given back; `None` never.
    pub(crate) shrink_after: Option<Duration>,
    /// How long a peer may show no sign of life when one is due; `None` for no limit.
    pub(crate) stalled_after: Option<Duration>,
    /// Every publish waits until all attached readers have read.
    pub(crate) ack: bool,
    /// The longest such wait, not zero.
    pub(crate) ack_timeout: Duration,
    /// Publishing waits while fewer readers than this are attached; at most `max_readers`.
    pub(crate) wait_readers: u32,
    /// Messages have publish times.
    pub(crate) timestamps: bool,
    /// A program that maps the segment enters its memory into the page table at once.
    pub(crate) prefault: bool,
    /// What its messages are.
    pub(crate) declared: Declared,
    /// The segment's group, by name and number; `None` leaves it the daemon's.
    pub(crate) group: Option<(String, u32)>,
    /// The objects' permission bits. Only the owner may write to a ring.
    pub(crate) mode: u32,
    /// Messages are handed over one at a time through these objects; nothing for a ring.
    pub(crate) handoff: Option<Names>,
    /// Who may attach as a reader.
    pub(crate) read: Access,
    /// Who may borrow the writer role.
    pub(crate) write: Access,
    /// Who may resize and evict.
    pub(crate) admin: Access,
    /// What feeds the channel inside the daemon.
    pub(crate) source: SourceKind,
    /// How the source's bytes are cut into messages.
    pub(crate) framing: Framing,
    /// The delimiter of `lines` and `nul` stays in the message.
    pub(crate) keep_delimiter: bool,
    /// Who has made it at run time; nothing for a channel of the configuration.
    pub(crate) created: Option<Arc<Created>>,
    /// A chunk that is not full is published this long after its first byte; `None` never.
    pub(crate) flush: Option<Duration>,
}

impl ChannelConfig {
    /// The name for `shm_open` of the channel's ring, which in a handoff channel is only the feed.
    pub(crate) fn object(&self, prefix: &Prefix) -> String {
        let name = prefix.segment_name(&self.name);
        if self.handoff.is_some() { format!("{name}.feed") } else { name }
    }

    /// The names of all its objects, as they are in `/dev/shm`.
    fn objects(&self, prefix: &Prefix) -> Vec<String> {
        let mut names = vec![self.object(prefix)];
        if let Some(Names { segment, avail, done }) = &self.handoff {
            names.push(segment.clone());
            names.extend([avail, done].map(|name| semaphore_file(name)));
        }
        names
    }

    /// An object that this channel and another one would both have: `main.feed` is the feed of the handoff channel `main`, and what a
    /// ring channel of that name would have.
    pub(crate) fn common_object(&self, other: &Self, prefix: &Prefix) -> Option<String> {
        let others = other.objects(prefix);
        self.objects(prefix).into_iter().find(|object| others.contains(object))
    }

    /// Whether this channel would be fed from what feeds another one, and can feed only one.
    pub(crate) fn has_source_of(&self, other: &Self) -> bool {
        let object = self.source.object().filter(|_| self.source.exclusive());
        object.is_some() && object == other.source.object()
    }

    /// Why this channel cannot be beside another one.
    pub(crate) fn conflict_with(&self, other: &Self, prefix: &Prefix) -> Option<String> {
        if let Some(object) = self.common_object(other, prefix) {
            return Some(format!("its object {object} is one of channel {}", other.name));
        }
        self.has_source_of(other).then(|| format!("source {} feeds channel {} already", self.source, other.name))
    }
}

/// Where the C library puts a semaphore.
fn semaphore_file(name: &str) -> String {
    name.replacen('/', "/sem.", 1)
}
