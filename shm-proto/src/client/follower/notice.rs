//! What a follower tells its program beside messages.

use std::fmt;
use std::time::Duration;

use crate::client::Error;

/// Why a [`Follower`](super::Follower) delivers nothing at present, or not everything.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice {
    /// There is no attachment. The follower attaches again, and as often as it takes.
    Waiting {
        /// Why the last attachment ended, or why attaching failed.
        why: Error,
        /// The time until the next attempt.
        pause: Duration,
    },
    /// The segment is broken. The follower goes on when the daemon has replaced it; which messages are missing, nobody knows.
    Broken {
        /// What is wrong with the segment.
        why: Error,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Waiting { why, .. } => write!(f, "{why}; waiting for it"),
            Notice::Broken { why } => {
                write!(f, "{why}; messages may be missing; going on when the daemon has replaced it")
            }
        }
    }
}
