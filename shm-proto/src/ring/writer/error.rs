//! The errors of publishing.

use std::time::Duration;

use crate::error::{Blocked, ProtocolError, SystemError};

pub(super) type Result<T, E = WriterError> = std::result::Result<T, E>;

/// Why a [`Writer`](crate::Writer) did not publish a message, or did not see that every reader has read it.
///
/// The message *is* published with [`Unacknowledged`](Self::Unacknowledged), may be published with
/// [`Superseded`](Self::Superseded), and is not published with any other error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
    /// The message is larger than the channel's limit.
    #[error("a message of {len} bytes is over channel {channel}'s limit of {limit} bytes")]
    TooLarge {
        /// Which channel.
        channel: String,
        /// The message's bytes.
        len: u64,
        /// The channel's `max_message`.
        limit: u64,
    },
    /// A wait timed out.
    #[error("timed out after {waited:?} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The call would have to wait, and the caller asked it not to.
    #[error("channel {channel} {reason}")]
    WouldBlock {
        /// Which channel.
        channel: String,
        /// What the call would have to wait for.
        reason: Blocked,
    },
    /// The program ended a wait with the flag that it passed to [`Writer::interrupt_on`](crate::Writer::interrupt_on).
    #[error("interrupted while waiting for {what}")]
    Interrupted {
        /// What was waited for: space or readers.
        what: String,
    },
    /// The message needs more capacity than the channel has, and the channel cannot grow now.
    #[error(
        "channel {channel}: a message needs {needed} bytes of capacity, there are {capacity}, and growing failed: {reason}"
    )]
    NoSpace {
        /// Which channel.
        channel: String,
        /// The capacity that would be enough, in bytes.
        needed: u64,
        /// The current capacity in bytes.
        capacity: u64,
        /// Why the channel cannot grow.
        reason: String,
    },
    /// The message is published, but not every reader has read it yet.
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
        /// The number of readers that have not read it.
        behind: usize,
        /// The number of attached readers.
        readers: usize,
        /// How long the publish could wait for the readers.
        waited: Duration,
        /// Why the wait ended early, if it did; for example because the writer role was taken back.
        ended: Option<String>,
    },
    /// The daemon took the writer role back.
    #[error("the writer role of channel {channel} was taken back: {reason}")]
    Revoked {
        /// Which channel.
        channel: String,
        /// Why.
        reason: String,
    },
    /// The writer role ended at the moment when a message was published: readers may or may not receive the message.
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
    /// The daemon is from another release, whose segments this library does not understand. Nothing was written to the
    /// segment, and the daemon keeps it.
    #[error("channel {channel}: {reason}")]
    OtherLayout {
        /// Which channel.
        channel: String,
        /// What each side has, and what to do.
        reason: String,
    },
    /// The segment or a record in it is not as the layout requires.
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
