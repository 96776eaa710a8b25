//! The errors of handing messages over.

use std::time::Duration;

use crate::error::{Blocked, SystemError};

pub(super) type Result<T, E = HandoffError> = std::result::Result<T, E>;

/// A name of an object in `/dev/shm` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is not a name for a {what}: {reason}; use a slash and a file name, such as /demo_shm")]
#[non_exhaustive]
pub struct BadObjectName {
    /// Which kind of object.
    pub what: &'static str,
    /// The name as given.
    pub input: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a message was not handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoffError {
    /// A process holds the mutex of the segment and does not release it.
    #[error("segment {segment}: its mutex is held by {holder}")]
    Locked {
        /// The segment's name.
        segment: String,
        /// The holder, as far as the mutex tells, and what to do.
        holder: String,
    },
    /// A wait timed out. From a writer: the message is withdrawn.
    #[error("timed out after {waited:?} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// To a writer: another message is on offer.
    #[error("channel {channel} {reason}")]
    WouldBlock {
        /// The segment's name.
        channel: String,
        /// What the call would have to wait for.
        reason: Blocked,
    },
    /// To a writer: the message is larger than the segment may become.
    #[error("a message of {len} bytes is over channel {channel}'s limit of {limit} bytes")]
    TooLarge {
        /// The segment's name.
        channel: String,
        /// The message's bytes.
        len: u64,
        /// The largest message.
        limit: u64,
    },
    /// To a writer: the segment cannot grow now.
    #[error(
        "channel {channel}: a message needs {needed} bytes of capacity, there are {capacity}, and growing failed: {reason}"
    )]
    NoSpace {
        /// The segment's name.
        channel: String,
        /// Capacity that would do, in bytes.
        needed: u64,
        /// Present capacity in bytes.
        capacity: u64,
        /// Why it cannot grow.
        reason: String,
    },
    /// To a reader: the writer has removed the objects, or the daemon closes the channel.
    #[error("channel {channel} is closed")]
    Closed {
        /// The channel, or the segment's name.
        channel: String,
    },
    /// To a reader that is attached to a daemon: an administrator has detached it.
    #[error("evicted from channel {channel}: {reason}; attach again to go on")]
    Evicted {
        /// Which channel.
        channel: String,
        /// By which process, and why.
        reason: String,
    },
    /// To a reader that is attached to a daemon: the daemon is gone.
    #[error("the daemon of channel {channel} is gone")]
    Disconnected {
        /// Which channel.
        channel: String,
    },
    /// The segment is not what the layout allows; nothing was read from it.
    #[error("segment of channel {channel}: {reason}")]
    Corrupt {
        /// The segment's name.
        channel: String,
        /// What is wrong, with numbers.
        reason: String,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SystemError),
}
