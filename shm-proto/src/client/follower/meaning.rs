//! What an error means to a follower.

use std::time::Duration;

use super::state::Return;
use crate::client::Error;
use crate::control::{ErrorKind, RequestError};
use crate::handoff::HandoffError;
use crate::ring::ReaderError;

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// One message, which is counted as lost or comes again, or one call. The attachment goes on.
    Message,
    /// The segment, which is broken.
    Broken,
    /// The attachment, which has ended or could not be made. `retry_after` is the daemon's word.
    Ended { back: Return, retry_after: Option<Duration> },
}

pub(super) fn meaning(error: &Error) -> Meaning {
    let mut retry_after = None;
    let back = match error {
        Error::Reader(error) => match error {
            ReaderError::Lapped { .. }
            | ReaderError::Withdrawn { .. }
            | ReaderError::NoSuchValue { .. }
            | ReaderError::TimedOut { .. } => return Meaning::Message,
            ReaderError::Corrupt { .. } => return Meaning::Broken,
            ReaderError::Closed { .. } | ReaderError::Disconnected { .. } | ReaderError::Evicted { .. } => {
                Return::Possible
            }
            ReaderError::OtherLayout { .. } | ReaderError::Protocol(_) | ReaderError::System(_) => Return::Never,
        },
        Error::Handoff(error) => match error {
            HandoffError::TimedOut { .. } => return Meaning::Message,
            HandoffError::Closed { .. } | HandoffError::Disconnected { .. } | HandoffError::Evicted { .. } => {
                Return::Possible
            }
            _ => Return::Never,
        },
        Error::Request(RequestError::NoDaemon { .. } | RequestError::TimedOut { .. }) => Return::Possible,
        Error::Request(RequestError::Refused(refusal)) => {
            retry_after = refusal.retry_after_ms.map(Duration::from_millis);
            match refusal.kind {
                ErrorKind::Busy | ErrorKind::TryLater => Return::Possible,
                // For example while a daemon starts.
                ErrorKind::NoSuchChannel | ErrorKind::TooMany => Return::IfKnown,
                _ => Return::Never,
            }
        }
        _ => Return::Never,
    };
    Meaning::Ended { back, retry_after }
}
