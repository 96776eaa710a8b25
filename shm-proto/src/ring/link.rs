//! The lines between the daemon and its peers: the holder of the writer role, which is a thread of the daemon or
//! another program, and the readers.
//!
//! The daemon stays off the data path. To tell the writer something, the daemon puts a line on the link, raises
//! [`LeasePage::generation`] and posts the page's semaphore. The writer loads the generation before every publish, and
//! reads the link if the generation has changed.
//!
//! # Flow control
//!
//! A writer may be stopped for hours while readers come and go. The link holds at most [`MOST_UNTAKEN`] lines that the
//! writer has not taken. The daemon keeps all further lines, and never mentions a reader that comes and goes in the
//! meantime. [`LeasePage::pending`] says that there are more lines. The writer's end of the link answers with
//! [`ToDaemon::Taken`] whenever it has taken the lines that were there.
//!
//! A reader whose line is held back has already got its answer, and reads. So a writer that sees `pending` gives up no
//! space in the ring until it has the line: see `Peers::withhold`.
//!
//! [`LeasePage::generation`]: super::layout::LeasePage::generation
//! [`LeasePage::pending`]: super::layout::LeasePage::pending

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::geometry::Geometry;
use crate::error::ProtocolError;

/// The largest number of lines to the writer that are in transit; the daemon keeps the others. Each line may carry two
/// descriptors.
pub const MOST_UNTAKEN: u64 = 16;

/// How many characters of a reader's [status](FromReader::Status) are kept.
pub const MOST_STATUS: usize = 100;

/// From the daemon to the writer. `reader_joined` comes with two descriptors: the reader's page and its bell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ToWriter {
    /// A reader attached.
    ReaderJoined {
        /// Its number.
        reader: u32,
    },
    /// A reader is gone; its page is no longer valid.
    ReaderLeft {
        /// Its number.
        reader: u32,
    },
    /// The data area has memory up to this capacity, and the writer may use it.
    Grown {
        /// New capacity in bytes.
        capacity: u64,
        /// This was the last step of the growth.
        done: bool,
    },
    /// Growth was requested and is not possible. Ask again after a second at the earliest.
    NotGrown {
        /// Why, with numbers.
        reason: String,
    },
    /// Use no more than this capacity, and send [`ToDaemon::Shrunk`] when no process needs anything above it.
    Shrink {
        /// New capacity in bytes.
        capacity: u64,
        /// [`ToDaemon::Shrunk`] returns this number, so that the daemon ignores an answer that crossed a later line.
        id: u32,
        /// Nobody has asked for it: a writer whose ring is full may ask for growth, and that ends the shrink.
        #[serde(default)]
        yields: bool,
    },
    /// The channel's policy has changed.
    Policy {
        /// As [`Geometry::ack`](super::geometry::Geometry::ack).
        ack: bool,
        /// As [`Geometry::ack_timeout_ms`](super::geometry::Geometry::ack_timeout_ms).
        ack_timeout_ms: u64,
        /// As [`Geometry::evict_after_ms`](super::geometry::Geometry::evict_after_ms).
        evict_after_ms: u64,
        /// As [`Geometry::wait_readers`](super::geometry::Geometry::wait_readers).
        wait_readers: u32,
    },
    /// Give the role back: publish no more messages.
    Revoked {
        /// Why.
        reason: String,
    },
    /// Not a line: the daemon died, and the writer has kept its role under the daemon that came in its place, which
    /// names the readers again.
    #[serde(skip)]
    Resumed,
    /// A line from a newer daemon that this version does not know. The writer ignores it.
    #[serde(other)]
    Unknown,
}

/// From the writer to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ToDaemon {
    /// The ring is full, or a message needs more than the current capacity.
    Grow {
        /// The smallest capacity that would help, in bytes.
        capacity: u64,
    },
    /// A shrink is in effect: nothing that the writer or a reader in good standing needs lies at or above this
    /// capacity.
    ///
    /// Readers whose cursor is below `after` (evicted or lapped) may still stand there: truncate the file when they
    /// have gone.
    Shrunk {
        /// Capacity in bytes.
        capacity: u64,
        /// The number of the [`ToWriter::Shrink`] that this answers. If the daemon has sent another line about the
        /// capacity since then, it does not truncate the file.
        id: u32,
        /// No record at or after this position lies above the capacity.
        after: u64,
    },
    /// The number of lines that the writer has taken since it was lent the role. The writer's end of the link sends
    /// this, not the writer.
    Taken {
        /// The total, not the number since the last such line.
        lines: u64,
    },
    /// The writer cannot serve a reader that the daemon named. The daemon then evicts the reader.
    Refused {
        /// Its number.
        reader: u32,
        /// Why, and what to do about it.
        reason: String,
    },
    /// The contents of the ring are invalid, and the writer cannot publish. The daemon then replaces the segment.
    Broken {
        /// What the writer found, and where.
        reason: String,
    },
    /// A reader was evicted, and its page already says so.
    Evicted {
        /// Its number.
        reader: u32,
        /// Why, with numbers.
        reason: String,
    },
    /// Messages are being dropped or overwritten, or the writer waits. Sent when this begins, and at most once per
    /// second.
    Overflow {
        /// Messages dropped so far.
        dropped: u64,
        /// Messages overwritten so far.
        overwritten: u64,
    },
    /// A line from a newer writer that this version does not know. The daemon ignores it.
    #[serde(other)]
    Unknown,
}

/// What an attached reader tells the daemon on its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FromReader {
    /// The contents of the segment are invalid. The daemon looks for itself before it believes that.
    Broken {
        /// What the reader found, and where.
        reason: String,
    },
    /// What the program is doing, in its own words, for `stat`. Replaces what it has said before.
    Status {
        /// At most [`MOST_STATUS`] characters are kept. Empty: it has nothing to say any more.
        status: String,
    },
    /// A line from a newer reader that this version does not know. The daemon ignores it.
    #[serde(other)]
    Unknown,
}

/// What the daemon tells an attached reader on its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ToReader {
    /// The reader was evicted.
    Evicted {
        /// Who evicted the reader, and why.
        reason: String,
    },
    /// The channel is closing; the messages in it can still be read.
    Closing {
        /// Why.
        reason: String,
    },
    /// The channel continues in a new segment, whose read-only descriptor comes with this line. Whatever is in the old
    /// segment at or after the position is not a message.
    Moved {
        /// The channel's facts, with the new segment's identity.
        geometry: Geometry,
        /// The position where the old segment ends and the new one begins.
        pos: u64,
        /// The number of the first message of the new segment.
        seq: u64,
        /// What was wrong with the old segment, if that is why the channel continues in a new one. In that case,
        /// messages may be missing, it is not known how many, and their numbers are skipped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        broken: Option<String>,
    },
    /// Not a line: the daemon died, and the reader is attached to the daemon that came in its place. The reader's end
    /// of a new bell comes with it.
    #[serde(skip)]
    Resumed,
    /// Not a line: the daemon died, and the daemon that came in its place does not continue this attachment.
    #[serde(skip)]
    NotResumed {
        /// Why.
        reason: String,
    },
    /// A line from a newer daemon that this version does not know. The reader ignores it.
    #[serde(other)]
    Unknown,
}

/// Why a link carries no more lines.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The daemon is gone.
    #[error("the daemon is gone")]
    Disconnected,
    /// A line cannot be used.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// A writer's or a reader's end of a link. `In` comes from the daemon, and `Out` goes to the daemon.
pub trait Link<In, Out>: Send + fmt::Debug {
    /// The next line from the daemon, if one has arrived. Never waits.
    ///
    /// # Errors
    /// [`LinkError::Disconnected`] if no further line can arrive.
    fn receive(&mut self) -> Result<Option<(In, Vec<OwnedFd>)>, LinkError>;

    /// Sends a line to the daemon. Never waits.
    ///
    /// # Errors
    /// [`LinkError::Disconnected`] if the daemon is gone.
    fn send(&mut self, line: Out) -> Result<(), LinkError>;

    /// A descriptor that is readable when a line may have arrived; `None` for a link without a descriptor.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// A number that grows whenever [`as_fd`](Self::as_fd) changes to another descriptor.
    fn changes(&self) -> u64 {
        0
    }

    /// `Some` while the daemon is gone and the link looks for another one. The value is the `CLOCK_MONOTONIC` time in
    /// nanoseconds when to call the link again although nothing is readable.
    fn looks_for_daemon(&self) -> Option<u64> {
        None
    }

    /// Whether the daemon is gone, and none has come in its place for as long as this program waits for one. One may come later.
    fn has_given_up(&self) -> bool {
        false
    }

    /// A daemon has come: a link that looks for one looks at once.
    fn daemon_has_come(&mut self) {}
}

/// A writer's end.
pub type WriterLink = Box<dyn Link<ToWriter, ToDaemon>>;
/// A reader's end.
pub type ReaderLink = Box<dyn Link<ToReader, FromReader>>;
