//! Where a value came from, for error messages.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shm_proto::ErrorKind;

use crate::access::Unusable;

/// The place a value was written at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of a file, counted from 1.
    File {
        /// Which file.
        path: Arc<Path>,
        /// Which line.
        line: usize,
    },
    /// A flag, as the user spells it: `--capacity`.
    Flag(String),
    /// An environment variable: `SHMD_CAPACITY`.
    Variable(String),
    /// A key of a channel that a program asks for.
    Key(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Flag(name) | Origin::Variable(name) => f.write_str(name),
            Origin::Key(key) => write!(f, "key {key}"),
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located<T> {
    /// What was written.
    pub(crate) value: T,
    /// Where.
    pub(crate) origin: Origin,
}

impl Error {
    /// Whether the same configuration may be right some time later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Error::Unknown { .. })
    }

    /// What a client is told whose request depends on the configuration.
    pub(crate) fn kind(&self) -> ErrorKind {
        if self.may_pass() { ErrorKind::Internal } else { ErrorKind::BadConfig }
    }

    /// Whether the mistake is on the command line or in the environment, which makes it wrong usage instead of bad configuration.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Error::Bad { origin: Origin::Flag(_) | Origin::Variable(_), .. })
    }
}

impl<T> Located<T> {
    /// The error about a name in this value.
    pub(super) fn unusable(&self, why: Unusable) -> Error {
        match why {
            Unusable::Wrong(reason) => self.bad(reason),
            Unusable::Unknown(reason) => Error::Unknown { origin: self.origin.clone(), reason },
        }
    }

    /// An error about this value.
    pub(crate) fn bad(&self, reason: impl fmt::Display) -> Error {
        Error::Bad { origin: self.origin.clone(), reason: reason.to_string() }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A value is refused.
    #[error("{origin}: {reason}")]
    Bad {
        /// Where the value was written.
        origin: Origin,
        /// What is wrong, with numbers and what would be right.
        reason: String,
    },
    /// Nobody knows whether a value is right: the user database does not answer, which may pass.
    #[error("{origin}: {reason}")]
    Unknown {
        /// Where the value was written.
        origin: Origin,
        /// What was asked for, what the database says, and what can be done.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The values together ask for more than there is, and no single one is to blame.
    #[error("{0}")]
    TooMuch(String),
}
