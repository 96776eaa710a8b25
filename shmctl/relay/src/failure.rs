//! What ends the program, with the exit codes, and what it waits for.

use std::fmt;

use shm_cli::ExitCode;
use shm_proto::{Error, ErrorKind, RequestError};
use shmctl::companion::{FAILED, Failure, NOT_PERMITTED, USAGE, WOULD_BLOCK};

/// The exit codes of a relay. It waits for a daemon, where other commands end with 69.
pub const CODES: &[ExitCode] = &[
    ExitCode::new(0, "ended by SIGINT or SIGTERM"),
    ExitCode::new(FAILED, "failed: the message states the reason"),
    ExitCode::new(USAGE, "wrong usage, or a wrong value, on the command line or in an environment variable"),
    ExitCode::new(WOULD_BLOCK, "the channel has no place for this relay's readers (max_readers)"),
    ExitCode::new(NOT_PERMITTED, "the server or the daemon does not permit it"),
];

/// The failure as one of a relay. `is_named`: the channel has a name on the command line or in the environment.
pub(crate) fn explained(failure: Failure, is_named: bool) -> Failure {
    let Failure::Library(Error::Request(RequestError::Refused(mut refusal))) = failure else { return failure };
    match refusal.kind {
        // Without a name, the daemon's list of channels is the way out.
        ErrorKind::NoSuchChannel if is_named => {
            refusal.message += "; add a [[channel]] table with that name to the daemon's configuration and run shmctl reload, or \
                                create the channel: shmctl create, or relay in --create-channel";
        }
        // The keys of --set, as in `shmctl create`.
        ErrorKind::BadConfig => return Failure::Usage(refusal.to_string()),
        _ => {}
    }
    RequestError::Refused(refusal).into()
}

/// What keeps a relay from going on.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may be over at the next attempt; the relay waits.
    Passing(String),
    /// The server no longer has the stream. Somebody may make it again.
    Gone(String),
    /// It stays as it is.
    Final(Failure),
}

impl Trouble {
    /// `what` was tried and failed.
    pub(crate) fn passing(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Trouble::Passing(format!("{what}: {why}"))
    }

    pub(crate) fn last(text: impl Into<String>) -> Self {
        Trouble::Final(Failure::Other(text.into()))
    }
}

impl<E: Into<Failure>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Trouble::Final(error.into())
    }
}

/// Whether an error of `JetStream` with this code means that the server itself has failed, and not that the request is wrong. The
/// server may be starting, or have no leader.
pub(crate) fn is_servers_own(code: usize) -> bool {
    code >= 500
}

/// An error with its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use shm_proto::Refusal;

    use super::*;

    fn refused(kind: ErrorKind, is_named: bool) -> Failure {
        explained(RequestError::Refused(Refusal::new(kind, "no channel named cam")).into(), is_named)
    }

    #[test]
    fn every_kind_of_failure_ends_with_a_code_of_the_list() {
        for (failure, code) in [
            (explained(Failure::Other("x".into()), true), 1),
            (explained(Failure::Usage("x".into()), true), 2),
            (explained(Failure::NotPermitted("x".into()), true), 77),
            (refused(ErrorKind::NoSuchChannel, true), 1),
            (refused(ErrorKind::TooMany, true), 75),
            (refused(ErrorKind::NotPermitted, true), 77),
            (refused(ErrorKind::BadConfig, true), 2),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure}");
            assert!(CODES.iter().any(|listed| listed.code == code), "{failure}");
        }
    }

    #[test]
    fn only_errors_of_the_request_are_final() {
        assert_eq!([400, 404, 499, 500, 503].map(is_servers_own), [false, false, false, true, true]);
    }

    #[test]
    fn a_channel_that_is_missing_comes_with_the_way_to_make_it() {
        let text = refused(ErrorKind::NoSuchChannel, true).to_string();
        assert!(text.contains("shmctl create") && text.contains("shmctl reload"), "{text}");
        for other in [refused(ErrorKind::NoSuchChannel, false), refused(ErrorKind::NotPermitted, true)] {
            assert_eq!(other.to_string(), "no channel named cam");
        }
    }
}
