//! What passes between the daemon and whoever holds the writer role: a thread of the daemon or another program.
//!
//! The daemon stays off the data path. It puts a line on the link, raises [`LeasePage::generation`] and posts the page's
//! semaphore; the writer looks at the generation with one load before every publish and reads the link when it changed.
//!
//! [`LeasePage::generation`]: super::layout::LeasePage::generation

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::error::Result;

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
    },
    /// Give the role back: publish nothing more.
    Revoked {
        /// Why.
        reason: String,
    },
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
    /// A growth or shrink is in effect: no record lies at or above this capacity, nor will one.
    Shrunk {
        /// Capacity in bytes.
        capacity: u64,
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
}

/// One end of the link, the writer's.
pub trait Link: Send {
    /// The next line from the daemon, if one has arrived; never waits. `Err` when the daemon is gone.
    ///
    /// # Errors
    /// [`Error::Disconnected`](crate::Error::Disconnected) when there will never be another one.
    fn receive(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>>;

    /// Puts a line on its way to the daemon; never waits.
    ///
    /// # Errors
    /// [`Error::Disconnected`](crate::Error::Disconnected) when the daemon is gone.
    fn send(&mut self, line: ToDaemon) -> Result<()>;
}
