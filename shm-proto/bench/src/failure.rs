//! Why a measurement ended early.

use std::fmt;

use shm_proto::Error;

/// The result of a step of a measurement.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a measurement ended early.
#[derive(Debug)]
pub enum Failure {
    /// The library or the daemon failed or refused.
    Library(Error),
    /// The user wanted it.
    Stopped,
    /// Anything else, in a sentence.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => error.fmt(f),
            Failure::Stopped => f.write_str("ended by a signal before everything was measured"),
            Failure::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Library(error.into())
    }
}
