//! What cutting an input can meet.

use crate::error::SystemError;
use crate::size::Bytes;

pub(super) type Result<T, E = FramingError> = std::result::Result<T, E>;

/// Text that is not a framing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{input:?} is not a framing: {reason}; write lines, nul, length, stream, or chunk= and a size, such as chunk=64KiB"
)]
#[non_exhaustive]
pub struct BadFraming {
    /// The text as given.
    pub input: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Why an input was not cut into messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The input cannot be cut into messages as asked.
    #[error("message {message} of the input, framed by {framing}: {reason}")]
    BadInput {
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
    /// The input cannot be read.
    #[error(transparent)]
    System(#[from] SystemError),
}
