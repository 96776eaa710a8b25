//! What receiving can meet.

use std::time::Duration;

use crate::error::{ProtocolError, SystemError, counted};

pub(super) type Result<T, E = ReaderError> = std::result::Result<T, E>;

/// Why a [`Reader`](crate::Reader) did not receive, or what was received cannot be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// A wait timed out.
    #[error("timed out after {waited:?} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The channel is closed and everything in it was read.
    #[error("channel {channel} is closed")]
    Closed {
        /// Which channel.
        channel: String,
    },
    /// The daemon is gone, and so is the writer. Everything that was published has been read.
    #[error("the daemon of channel {channel} is gone")]
    Disconnected {
        /// Which channel.
        channel: String,
    },
    /// This reader held a lossless channel up for too long and was detached by the writer or an administrator.
    #[error("evicted from channel {channel}: {reason}; attach again to go on")]
    Evicted {
        /// Which channel.
        channel: String,
        /// By which process, and why.
        reason: String,
    },
    /// The bytes just read were overwritten while they were being read.
    #[error("overwritten while reading: {} of channel {channel} lost", counted(*lost, "message"))]
    Lapped {
        /// Which channel.
        channel: String,
        /// How many messages this reader will never see.
        lost: u64,
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
    /// The daemon is of another release, whose segments this library does not understand; nothing was read from it.
    #[error("channel {channel}: {reason}")]
    OtherLayout {
        /// Which channel.
        channel: String,
        /// What each side has, and the way out.
        reason: String,
    },
    /// The segment or a record in it is not what the layout allows; nothing was read from it.
    #[error("segment of channel {channel}: {reason}")]
    Corrupt {
        /// Which channel.
        channel: String,
        /// What is wrong, with offsets and numbers.
        reason: String,
    },
    /// What the daemon sent cannot be used.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}
