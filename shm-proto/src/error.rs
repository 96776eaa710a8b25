//! The one error type of the library: every variant names the object, the numbers and the cause.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::duration::BadDuration;
use crate::name::BadName;
use crate::size::{BadSize, Bytes};

mod refusal;

pub use refusal::{ErrorKind, Refusal};

/// A result with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with the facts that a caller needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text that is not a size.
    #[error(transparent)]
    BadSize(#[from] BadSize),
    /// Text that is not a duration.
    #[error(transparent)]
    BadDuration(#[from] BadDuration),
    /// Text that is not a framing.
    #[error(
        "{input:?} is not a framing: {reason}; write lines, nul, length, or chunk= and a size, such as chunk=64KiB"
    )]
    BadFraming {
        /// The text as given.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An input that cannot be cut into messages as asked.
    #[error("message {message} of the input, framed by {framing}: {reason}")]
    Framing {
        /// How the input is cut.
        framing: String,
        /// Which message, counted from 1.
        message: u64,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// There is no memory to collect a message in; nothing of it is lost yet.
    #[error("no memory for message {message} of the input, of which {} are here: asked {}, free {free}", Bytes(*here), Bytes(*asked))]
    NoMemory {
        /// Which message, counted from 1.
        message: u64,
        /// Bytes of it that have come.
        here: u64,
        /// Bytes of memory that it needs now.
        asked: u64,
        /// What there is, and which limit says so.
        free: String,
    },
    /// A name that cannot be used.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// A name of an object in `/dev/shm` that cannot be used.
    #[error("{input:?} is not a name for a {what}: {reason}; use a slash and a file name, such as /demo_shm")]
    BadObjectName {
        /// Which kind of object.
        what: &'static str,
        /// The name as given.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A ring's reader was requested, but the channel is a handoff channel.
    #[error("channel {channel} hands messages over one at a time; read it through {objects}")]
    IsHandoff {
        /// Which channel.
        channel: String,
        /// The names of its objects.
        objects: String,
    },
    /// A process holds the mutex of a handoff segment and does not release it.
    #[error("segment {segment}: its mutex is held by {holder}")]
    Locked {
        /// The segment's name.
        segment: String,
        /// The holder, as far as the mutex tells, and the way out.
        holder: String,
    },
    /// A system call failed.
    #[error("{action}: {source}")]
    System {
        /// What was tried, on which object, with which numbers.
        action: String,
        /// The system's reason.
        source: io::Error,
    },
    /// No daemon answers on the socket.
    #[error("no daemon at {}: {reason}; start shmd, or name its directory with SHMD_RUNTIME_DIR", socket.display())]
    NoDaemon {
        /// The control socket that was tried.
        socket: PathBuf,
        /// Why it did not answer.
        reason: String,
    },
    /// The daemon refused a request, with a reason.
    #[error("{0}")]
    Refused(Refusal),
    /// The other side broke the protocol: too long, not JSON, descriptors missing.
    #[error("control protocol: {0}")]
    Protocol(String),
    /// The other side speaks another version of the protocol.
    #[error(
        "control protocol: the other side speaks version {theirs}, this program version {ours}; use programs of one release"
    )]
    Version {
        /// The version in the line received.
        theirs: u64,
        /// The version spoken here.
        ours: u32,
    },
    /// A segment or a record in it is not what the layout allows; nothing was read from it.
    #[error("segment of channel {channel}: {reason}")]
    Corrupt {
        /// Which channel.
        channel: String,
        /// What is wrong, with offsets and numbers.
        reason: String,
    },
    /// The message is larger than the channel will ever take.
    #[error("a message of {len} bytes is over channel {channel}'s limit of {limit} bytes")]
    TooLarge {
        /// Which channel.
        channel: String,
        /// The message's bytes.
        len: u64,
        /// The channel's `max_message`.
        limit: u64,
    },
    /// A wait timed out. From a writer: the message is not published.
    #[error("timed out after {waited:?} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The program has ended a wait with the flag that it gave to
    /// [`Writer::interrupt_on`](crate::Writer::interrupt_on). The message is not published.
    #[error("interrupted while waiting for {what}")]
    Interrupted {
        /// What was waited for: space or readers.
        what: String,
    },
    /// A message is published, but not every reader has read it yet.
    #[error(
        "message {seq} of channel {channel} is published, but {behind} of {readers} readers {} not read it {}",
        if *behind == 1 { "has" } else { "have" },
        match ended { None => format!("after {waited:?}"), Some(why) => format!("yet, and waiting for them ended: {why}") }
    )]
    Unacknowledged {
        /// Which channel.
        channel: String,
        /// The number of the message, or of the last one of a batch.
        seq: u64,
        /// Readers that have not read it.
        behind: usize,
        /// Readers that are attached.
        readers: usize,
        /// How long publishing may wait for them.
        waited: Duration,
        /// Why the wait ended early, if it did; for example because the writer role was taken back.
        ended: Option<String>,
    },
    /// The call would have to wait, and the caller asked not to. From a writer: the message is not published.
    #[error("channel {channel} {reason}")]
    WouldBlock {
        /// Which channel.
        channel: String,
        /// What the call would have to wait for.
        reason: Blocked,
    },
    /// The message needs more capacity than the channel has, and growing is not possible now.
    #[error(
        "channel {channel}: a message needs {needed} bytes of capacity, there are {capacity}, and growing failed: {reason}"
    )]
    NoSpace {
        /// Which channel.
        channel: String,
        /// Capacity that would do, in bytes.
        needed: u64,
        /// Present capacity in bytes.
        capacity: u64,
        /// Why it cannot grow.
        reason: String,
    },
    /// This reader held a lossless channel up for too long and was detached by the writer or an administrator.
    #[error("evicted from channel {channel}: {reason}; attach again to go on")]
    Evicted {
        /// Which channel.
        channel: String,
        /// By which process, and why.
        reason: String,
    },
    /// The channel is closed and everything in it was read.
    #[error("channel {channel} is closed")]
    Closed {
        /// Which channel.
        channel: String,
    },
    /// The daemon is gone. Messages that were published before can still be read.
    #[error("the daemon of channel {channel} is gone")]
    Disconnected {
        /// Which channel.
        channel: String,
    },
    /// The writer role was taken back by the daemon.
    #[error("the writer role of channel {channel} was taken back: {reason}")]
    Revoked {
        /// Which channel.
        channel: String,
        /// Why.
        reason: String,
    },
    /// The writer role ended in the moment in which a message was published: it may be in the ring for the readers or not.
    #[error(
        "the writer role of channel {channel} ended while message {seq} was published: readers may receive it, and what \
         followed it in its batch, or not"
    )]
    Superseded {
        /// Which channel.
        channel: String,
        /// The message's number, or that of the first of its batch.
        seq: u64,
    },
    /// The record just read is not a message of the channel: its writer had lost the role before it stored the record. The next
    /// message has this number.
    #[error("message {seq} of channel {channel} was withdrawn: its writer had lost its role; receive again")]
    Withdrawn {
        /// Which channel.
        channel: String,
        /// The number that the message would have had.
        seq: u64,
    },
    /// The bytes just read were overwritten while they were being read.
    #[error("overwritten while reading: {} of channel {channel} lost", counted(*lost, "message"))]
    Lapped {
        /// Which channel.
        channel: String,
        /// How many messages this reader will never see.
        lost: u64,
    },
}

/// What a call that may not wait would have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Blocked {
    /// The readers have to give space back.
    #[error("is full: {used} of {capacity} bytes are not read yet")]
    Full {
        /// Bytes that some reader still needs.
        used: u64,
        /// Present capacity in bytes.
        capacity: u64,
    },
    /// The daemon has been asked for more capacity.
    #[error("is growing: a message needs {needed} bytes of capacity, there are {capacity}")]
    Growing {
        /// Capacity that would do, in bytes.
        needed: u64,
        /// Present capacity in bytes.
        capacity: u64,
    },
    /// More readers have to attach: the channel's `wait_readers`.
    #[error("waits for {}: {attached} attached", counted(*wanted as u64, "reader"))]
    Readers {
        /// Readers that are attached and have chosen their start.
        attached: usize,
        /// The channel's `wait_readers`.
        wanted: usize,
    },
}

/// A count and its noun: `1 message`, `2 messages`.
fn counted(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

impl Error {
    /// A failed system call: `action` says what was tried on which object.
    pub fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::System { action: action.into(), source: source.into() }
    }

    /// The last system call's `errno`, with what was tried.
    pub fn last_os_error(action: impl Into<String>) -> Self {
        Self::system(action, io::Error::last_os_error())
    }

    /// The kind the daemon gave, when this is a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<ErrorKind> {
        match self {
            Error::Refused(refusal) => Some(refusal.kind),
            _ => None,
        }
    }
}
