//! What ends the program, and its exit code: in one place.

use std::fmt;
use std::io;

use shm_cli::ExitCode;
use shm_proto::{Error, ErrorKind};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_PERMITTED: u8 = 77;

/// The exit codes, with the numbers that `shmctl` has for the same. A relay waits where other commands end with 69 or 75.
pub const CODES: &[ExitCode] = &[
    ExitCode::new(0, "ended by SIGINT or SIGTERM"),
    ExitCode::new(FAILED, "failed: the message states the reason"),
    ExitCode::new(USAGE, "wrong usage, or a wrong value, on the command line or in an environment variable"),
    ExitCode::new(NOT_PERMITTED, "the server or the daemon does not permit it"),
];

/// Why the program ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library, or a refusal of the daemon.
    Library(Error),
    /// The server does not accept the credentials, or the user may not do this.
    NotPermitted(String),
    /// An argument that the command line parser could not judge by itself.
    Usage(String),
    /// Anything else, in a sentence.
    Other(String),
}

impl Failure {
    /// One of [`CODES`].
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => USAGE,
            Failure::NotPermitted(_) => NOT_PERMITTED,
            Failure::Other(_) => FAILED,
            Failure::Library(error) => match error.refusal() {
                Some(ErrorKind::NotPermitted) => NOT_PERMITTED,
                // The keys of --set.
                Some(ErrorKind::BadConfig) => USAGE,
                Some(_) => FAILED,
                None => match error {
                    Error::BadName(_) => USAGE,
                    error if error.system_reason().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied) => {
                        NOT_PERMITTED
                    }
                    _ => FAILED,
                },
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) if error.refusal() == Some(ErrorKind::NoSuchChannel) => write!(
                f,
                "{error}; add a [[channel]] table with that name to the daemon's configuration and run shmctl reload, or create \
                 the channel: shmctl create, or relay in --create-channel"
            ),
            Failure::Library(error) => error.fmt(f),
            Failure::NotPermitted(text) | Failure::Usage(text) | Failure::Other(text) => f.write_str(text),
        }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Library(error.into())
    }
}

/// What keeps a relay from going on.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may be over at the next attempt; the relay waits.
    Passing(String),
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
    use shm_proto::{Refusal, RequestError};

    use super::*;

    fn refused(kind: ErrorKind) -> Failure {
        RequestError::Refused(Refusal::new(kind, "no channel named cam")).into()
    }

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        for (failure, code) in [
            (Failure::Other("x".into()), 1),
            (Failure::Usage("x".into()), 2),
            (Failure::NotPermitted("x".into()), 77),
            (refused(ErrorKind::NoSuchChannel), 1),
            (refused(ErrorKind::NotPermitted), 77),
            (refused(ErrorKind::BadConfig), 2),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure}");
        }
    }

    #[test]
    fn a_channel_that_is_missing_comes_with_the_way_to_make_it() {
        let text = refused(ErrorKind::NoSuchChannel).to_string();
        assert!(text.contains("shmctl create") && text.contains("shmctl reload"), "{text}");
    }
}
