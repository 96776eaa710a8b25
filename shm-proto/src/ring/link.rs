//! What passes between the daemon and those who are attached: whoever holds the writer role, which is a thread of the daemon or
//! another program, and readers.
//!
//! The daemon stays off the data path. It puts a line on the link, raises [`LeasePage::generation`] and posts the page's
//! semaphore; the writer looks at the generation with one load before every publish and reads the link when it changed.
//!
//! # Flow control
//!
//! A writer may be stopped for hours, and readers come and go meanwhile. The daemon has at most [`MOST_UNTAKEN`] lines on the
//! link that the writer has not taken; what else there is to say it keeps, and a reader that comes and goes meanwhile is never
//! mentioned. [`LeasePage::pending`] says that there is more. The writer's end of the link answers with
//! [`ToDaemon::Taken`] whenever it has taken what was there.
//!
//! A reader whose line is held back has been answered all the same, and reads. So a writer that sees `pending` gives up nothing
//! of the ring until it has the line: see `Peers::withhold`.
//!
//! [`LeasePage::generation`]: super::layout::LeasePage::generation
//! [`LeasePage::pending`]: super::layout::LeasePage::pending

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::geometry::Geometry;
use crate::error::ProtocolError;

/// Most lines to the writer that are on their way; the daemon keeps the others. Each may carry two descriptors.
pub const MOST_UNTAKEN: u64 = 16;

/// From the daemon to the writer. `reader_joined` comes with two descriptors: the reader's page and its bell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ToWriter {
    /// A reader attached.
    ReaderJoined {
        /// Its number.
        reader: u32,
    },
    /// A reader is gone; its page means nothing any more.
    ReaderLeft {
        /// Its number.
        reader: u32,
    },
    /// So many bytes of the data area have memory behind them, and the writer may use them up to this capacity.
    Grown {
        /// New capacity in bytes.
        capacity: u64,
        /// This was the last step of the growth.
        done: bool,
    },
    /// Growth was asked for and is not to be had; ask again no sooner than in a second.
    NotGrown {
        /// Why, with numbers.
        reason: String,
    },
    /// Use no more than this; say [`ToDaemon::Shrunk`] when nothing above it is needed by anyone.
    Shrink {
        /// New capacity in bytes.
        capacity: u64,
        /// Comes back with [`ToDaemon::Shrunk`], so that an answer that crossed a later line is not believed.
        id: u32,
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
    /// Give the role back: publish nothing more.
    Revoked {
        /// Why.
        reason: String,
    },
    /// Not a line: the daemon died, and the writer has kept its role under one that has come in its place, which names the readers
    /// anew.
    #[serde(skip)]
    Resumed,
    /// A line that this version does not know, from a newer daemon. The writer passes over it.
    #[serde(other)]
    Unknown,
}

/// From the writer to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ToDaemon {
    /// The ring is pressed, or a message needs more than the present capacity.
    Grow {
        /// The least capacity that would help, in bytes.
        capacity: u64,
    },
    /// A shrink is in effect: nothing that the writer or a reader in good standing needs lies at or above this capacity.
    ///
    /// Readers whose cursor is below `after` (evicted or lapped) may still stand there: cut the file when they have gone.
    Shrunk {
        /// Capacity in bytes.
        capacity: u64,
        /// Of the [`ToWriter::Shrink`] that this answers. The daemon cuts nothing when it has sent another line about the
        /// capacity since.
        id: u32,
        /// No record at or after this position lies above the capacity.
        after: u64,
    },
    /// The writer has taken so many lines since it was lent the role. Sent by its end of the link, not by the writer.
    Taken {
        /// All of them, not those since the last time.
        lines: u64,
    },
    /// The writer cannot serve a reader that it was told of: the daemon evicts the reader.
    Refused {
        /// Its number.
        reader: u32,
        /// Why, and what to do about it.
        reason: String,
    },
    /// What stands in the ring makes no sense, and nothing can be published: the daemon replaces the segment.
    Broken {
        /// What the writer has found, and where.
        reason: String,
    },
    /// A reader was evicted; its page says so already.
    Evicted {
        /// Its number.
        reader: u32,
        /// Why, with numbers.
        reason: String,
    },
    /// Messages are being dropped or overwritten, or the writer waits: said when it begins, and at most once a second.
    Overflow {
        /// Messages dropped so far.
        dropped: u64,
        /// Messages overwritten so far.
        overwritten: u64,
    },
    /// A line that this version does not know, from a newer writer. The daemon passes over it.
    #[serde(other)]
    Unknown,
}

/// What an attached reader tells the daemon on its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FromReader {
    /// What stands in the segment makes no sense. The daemon looks for itself before it believes that.
    Broken {
        /// What the reader has found, and where.
        reason: String,
    },
    /// A line that this version does not know, from a newer reader. The daemon passes over it.
    #[serde(other)]
    Unknown,
}

/// What the daemon tells an attached reader on its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ToReader {
    /// The reader was evicted.
    Evicted {
        /// By whom and why.
        reason: String,
    },
    /// The channel is closing; what is in it can still be read.
    Closing {
        /// Why.
        reason: String,
    },
    /// The channel goes on in a new segment, whose read-only descriptor comes with this line. What stands in the old segment
    /// at or after the position is no message.
    Moved {
        /// The channel's facts, with the new segment's identity.
        geometry: Geometry,
        /// The position where the old segment ends and the new one begins.
        pos: u64,
        /// The number of the first message of the new segment.
        seq: u64,
        /// What was wrong with the old segment, if that is why the channel goes on in a new one. Messages may be missing then, nobody
        /// knows how many, and numbers are left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        broken: Option<String>,
    },
    /// Not a line: the daemon died, and the reader is attached to one that has come in its place. The reader's end of a new bell comes
    /// with it.
    #[serde(skip)]
    Resumed,
    /// Not a line: the daemon died, and one that has come in its place does not go on with this attachment.
    #[serde(skip)]
    NotResumed {
        /// Why.
        reason: String,
    },
    /// A line that this version does not know, from a newer daemon. The reader passes over it.
    #[serde(other)]
    Unknown,
}

/// Why nothing passes.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The daemon is gone.
    #[error("the daemon is gone")]
    Disconnected,
    /// A line cannot be used.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// The end of a link that a writer or a reader has. `In` comes from the daemon, and `Out` goes to it.
pub trait Link<In, Out>: Send + fmt::Debug {
    /// The next line from the daemon, if one has arrived; never waits.
    ///
    /// # Errors
    /// [`LinkError::Disconnected`] when there will never be another one.
    fn receive(&mut self) -> Result<Option<(In, Vec<OwnedFd>)>, LinkError>;

    /// Puts a line on its way to the daemon; never waits.
    ///
    /// # Errors
    /// [`LinkError::Disconnected`] when the daemon is gone.
    fn send(&mut self, line: Out) -> Result<(), LinkError>;

    /// Readable when a line may have arrived; `None` for a link that has no descriptor.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Grows when [`as_fd`](Self::as_fd) has become another descriptor.
    fn changes(&self) -> u64 {
        0
    }

    /// Whether the daemon is gone and another is looked for; and when to look again although nothing is readable, `CLOCK_MONOTONIC`
    /// nanoseconds.
    fn looks_for_daemon(&self) -> Option<u64> {
        None
    }
}

/// A writer's end.
pub type WriterLink = Box<dyn Link<ToWriter, ToDaemon>>;
/// A reader's end.
pub type ReaderLink = Box<dyn Link<ToReader, FromReader>>;
