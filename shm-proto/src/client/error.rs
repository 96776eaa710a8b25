//! The sum of the roles' errors, for programs that report errors and do not act on them.

use std::io;

use crate::control::{ErrorKind, RequestError};
use crate::duration::BadDuration;
use crate::error::{ProtocolError, SystemError};
use crate::framing::{BadFraming, FramingError};
use crate::handoff::{BadObjectName, HandoffError};
use crate::name::BadName;
use crate::ring::content::BadContent;
use crate::ring::{ReaderError, WriterError};
use crate::size::BadSize;

/// A result with this library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong: each role's error, and what text cannot mean. Every error names the object, the numbers and the
/// cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Receiving.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// Publishing.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// Asking the daemon.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Handing messages over one at a time.
    #[error(transparent)]
    Handoff(#[from] HandoffError),
    /// A ring's reader was requested, but the channel is a handoff channel.
    #[error("channel {channel} hands messages over one at a time; read it through {objects}")]
    IsHandoff {
        /// Which channel.
        channel: String,
        /// The names of its objects.
        objects: String,
    },
    /// Cutting an input into messages.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// What the other side sent.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A failed system call.
    #[error(transparent)]
    System(#[from] SystemError),
    /// Text that is not a size.
    #[error(transparent)]
    BadSize(#[from] BadSize),
    /// Text that is not a duration.
    #[error(transparent)]
    BadDuration(#[from] BadDuration),
    /// Text that is not a framing.
    #[error(transparent)]
    BadFraming(#[from] BadFraming),
    /// A name that cannot be used.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// A name of an object in `/dev/shm` that cannot be used.
    #[error(transparent)]
    BadObjectName(#[from] BadObjectName),
    /// Text that cannot be the name of an encoding or of a schema.
    #[error(transparent)]
    BadContent(#[from] BadContent),
}

impl Error {
    /// A failed system call: `action` says what was tried on which object.
    pub fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        SystemError::new(action, source).into()
    }

    /// The system's reason, when this is a failed system call of any role.
    #[must_use]
    pub fn system_reason(&self) -> Option<&io::Error> {
        std::error::Error::source(self)?.downcast_ref()
    }

    /// The kind the daemon gave, when this is a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<ErrorKind> {
        match self {
            Error::Request(error) => error.refusal(),
            _ => None,
        }
    }
}
