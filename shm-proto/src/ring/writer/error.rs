//! What publishing can meet.

use std::time::Duration;

use crate::error::{Blocked, ProtocolError, SystemError};

pub(super) type Result<T, E = WriterError> = std::result::Result<T, E>;

/// Why a [`Writer`](crate::Writer) did not publish, or did not see that every reader has read.
///
/// The message *is* published with [`Unacknowledged`](Self::Unacknowledged), may be with [`Superseded`](Self::Superseded), and is
/// not with any other error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriterError {
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
    /// A wait timed out.
    #[error("timed out after {waited:?} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The call would have to wait, and the caller asked not to.
    #[error("channel {channel} {reason}")]
    WouldBlock {
        /// Which channel.
        channel: String,
        /// What the call would have to wait for.
        reason: Blocked,
    },
    /// The program has ended a wait with the flag that it gave to
    /// [`Writer::interrupt_on`](crate::Writer::interrupt_on).
    #[error("interrupted while waiting for {what}")]
    Interrupted {
        /// What was waited for: space or readers.
        what: String,
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
    /// The daemon is of another release, whose segments this library does not understand; nothing was written to it, and the daemon keeps it.
    #[error("channel {channel}: {reason}")]
    OtherLayout {
        /// Which channel.
        channel: String,
        /// What each side has, and the way out.
        reason: String,
    },
    /// The segment or a record in it is not what the layout allows.
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
