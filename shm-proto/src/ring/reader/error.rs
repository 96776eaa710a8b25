//! The errors of receiving.

use std::time::Duration;

use crate::error::{ProtocolError, SystemError, counted};

pub(super) type Result<T, E = ReaderError> = std::result::Result<T, E>;

/// Why a [`Reader`](crate::Reader) did not receive a message, or why a received message is invalid.
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
    /// The channel is closed, and this reader has read everything in it.
    #[error("channel {channel} is closed")]
    Closed {
        /// Which channel.
        channel: String,
    },
    /// The daemon and the writer are gone. This reader has read everything that was published.
    #[error("the daemon of channel {channel} is gone")]
    Disconnected {
        /// Which channel.
        channel: String,
    },
    /// This reader held up a lossless channel for too long, and the writer or an administrator detached it.
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
    /// The record just read is not a message of the channel: its writer had lost the role before it stored the record.
    /// The next message has the number that this one would have had.
    #[error("message {seq} of channel {channel} was withdrawn: its writer had lost its role; receive again")]
    Withdrawn {
        /// Which channel.
        channel: String,
        /// The number that the message would have had.
        seq: u64,
    },
    /// The message does not have as many bytes as the value that it was to be copied to, and was passed.
    #[error("message {seq} of channel {channel} has {len} bytes, a value of {expected} bytes was expected")]
    NoSuchValue {
        /// Which channel.
        channel: String,
        /// The message's number.
        seq: u64,
        /// The message's bytes.
        len: usize,
        /// The value's bytes.
        expected: usize,
    },
    /// The daemon is from another release, whose segments this library does not understand. Nothing was read from the
    /// segment.
    #[error("channel {channel}: {reason}")]
    OtherLayout {
        /// Which channel.
        channel: String,
        /// What each side has, and what to do.
        reason: String,
    },
    /// The segment or a record in it is not as the layout requires. Nothing was read from it.
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

impl ReaderError {
    /// Whether no more messages come after this error.
    pub(crate) fn ends_attachment(&self) -> bool {
        use ReaderError::{Corrupt, Lapped, NoSuchValue, TimedOut, Withdrawn};
        !matches!(self, Corrupt { .. } | Lapped { .. } | NoSuchValue { .. } | TimedOut { .. } | Withdrawn { .. })
    }

    /// Whether the channel has come to its end, and everything in it was received.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, ReaderError::Closed { .. })
    }
}
