//! The errors of asking the daemon.

use std::path::PathBuf;
use std::time::Duration;

use super::{ErrorKind, Refusal};
use crate::error::{ProtocolError, SystemError};

/// Why a request was not granted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No daemon answers on the socket.
    #[error("no daemon at {}: {reason}; start shmd, or name its directory with SHMD_RUNTIME_DIR", socket.display())]
    NoDaemon {
        /// The control socket that was tried.
        socket: PathBuf,
        /// Why it did not answer.
        reason: String,
    },
    /// The daemon refused the request, with a reason.
    #[error("{0}")]
    Refused(Refusal),
    /// The daemon did not take the connection, or did not answer, in time.
    #[error("timed out after {waited:?} waiting for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The request could not be sent, or the answer makes no sense.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A system call failed; for example, this user may not connect to the daemon.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl RequestError {
    /// The kind the daemon gave, when this is a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<ErrorKind> {
        match self {
            RequestError::Refused(refusal) => Some(refusal.kind),
            _ => None,
        }
    }
}
