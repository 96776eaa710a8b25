//! Borrowing the writer role, and with `--follow` waiting for it as often as it takes.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use shm_proto::{Error, ErrorKind, Expected, RequestError, Writer, WriterError};

use super::Args;
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::output::wait_for;
use crate::signals::Signals;

/// The pause before the first attempt to borrow the role again. Each further pause is twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, unless the daemon asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Borrows the role of one channel.
pub(super) struct Borrower<'a> {
    global: &'a Global,
    signals: &'a Signals,
    expected: Option<&'a Expected>,
    follows: bool,
    /// The command has had the role, so the channel's name is right.
    knows_channel: bool,
}

impl<'a> Borrower<'a> {
    pub(super) fn new(args: &'a Args, global: &'a Global, signals: &'a Signals) -> Self {
        Borrower { global, signals, expected: args.expect.as_ref(), follows: args.follow, knows_channel: false }
    }

    /// Borrows the role. `None`: a signal has ended the wait for it.
    pub(super) fn borrow(&mut self) -> Result<Option<Writer>> {
        let (mut pause, mut told) = (SHORTEST_PAUSE, None);
        let endpoint = self.global.endpoint_expecting(self.expected);
        while !self.signals.came() {
            let error = match Writer::attach(&endpoint, self.global.channel.as_deref()) {
                Ok(mut writer) => {
                    writer.interrupt_on(self.signals.flag());
                    self.knows_channel = true;
                    return Ok(Some(writer));
                }
                Err(error) => error,
            };
            let asked = if self.follows { may_come(&error, self.knows_channel) } else { None };
            let Some(asked) = asked else { return Err(error.into()) };
            // Once for each reason.
            let reason = error.refusal();
            if told != Some(reason) {
                note(&format!("{error}; waiting for it"));
                told = Some(reason);
            }
            wait_for(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], pause.max(asked))?;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        Ok(None)
    }
}

/// Whether the role may be there later, and how long the daemon asks to wait.
fn may_come(error: &Error, knows_channel: bool) -> Option<Duration> {
    match error {
        Error::Request(RequestError::NoDaemon { .. } | RequestError::TimedOut { .. }) => Some(Duration::ZERO),
        Error::Request(RequestError::Refused(refusal)) => match refusal.kind {
            // For example while a daemon starts.
            ErrorKind::NoSuchChannel if knows_channel => Some(Duration::ZERO),
            kind if kind.is_temporary() => Some(Duration::from_millis(refusal.retry_after_ms.unwrap_or(0))),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the role is lost, and the same input may go on with another one.
pub(super) fn is_over(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Library(Error::Writer(
            WriterError::Revoked { .. }
                | WriterError::Superseded { .. }
                | WriterError::Unacknowledged { ended: Some(_), .. }
        ))
    )
}

#[cfg(test)]
mod tests {
    use shm_proto::Refusal;

    use super::*;

    #[test]
    fn what_may_change_is_waited_for_and_what_may_not_is_an_error() {
        let refused = |kind| Error::from(RequestError::Refused(Refusal::new(kind, "no").with_retry_after_ms(70)));
        let absent = Error::from(RequestError::NoDaemon { socket: "/x".into(), reason: "absent".into() });
        assert_eq!(may_come(&absent, false), Some(Duration::ZERO));
        for kind in [ErrorKind::Busy, ErrorKind::WriterTaken, ErrorKind::TryLater] {
            assert_eq!(may_come(&refused(kind), false), Some(Duration::from_millis(70)), "{kind:?}");
        }
        for kind in [ErrorKind::NotPermitted, ErrorKind::BadVersion, ErrorKind::NoSuchChannel] {
            assert_eq!(may_come(&refused(kind), false), None, "{kind:?}");
        }
        assert_eq!(may_come(&refused(ErrorKind::NoSuchChannel), true), Some(Duration::ZERO));
    }

    #[test]
    fn a_role_that_was_taken_back_may_be_lent_again_and_a_large_message_stays_too_large() {
        let channel = || "main".to_owned();
        for (error, over) in [
            (WriterError::Revoked { channel: channel(), reason: "stopping".into() }, true),
            (WriterError::Superseded { channel: channel(), seq: 7 }, true),
            (WriterError::TooLarge { channel: channel(), len: 2, limit: 1 }, false),
            (WriterError::Interrupted { what: "space".into() }, false),
        ] {
            assert_eq!(is_over(&error.into()), over);
        }
    }
}
