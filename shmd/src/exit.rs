//! From an error to the process's exit code, in one place.

use std::io::{self, ErrorKind};

use shm_proto::{Error, HandoffError, ReaderError, RequestError, WriterError};

use crate::socket::Unfit;
use crate::{config, process};

/// It failed.
const FAILED: u8 = 1;
/// A mistake on the command line or in an environment variable.
const USAGE: u8 = 2;
/// Timed out or would block.
const TEMPORARY: u8 = 75;
/// Not permitted.
const NOT_PERMITTED: u8 = 77;
/// A mistake in a configuration file or in the socket unit.
const CONFIGURATION: u8 = 78;

/// The outcome of a start in the background.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The exit code to end with.
    pub(crate) code: u8,
    /// What to say about it.
    pub(crate) message: String,
}

/// Why the daemon ends other than by being told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line, or a request for help or the version.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The configuration, wherever it was written.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Another daemon, or an unusable runtime directory.
    #[error(transparent)]
    Instance(#[from] process::Error),
    /// Anything while running.
    #[error(transparent)]
    Run(#[from] Error),
    /// What the service manager has handed over is not the control socket.
    #[error(transparent)]
    Socket(#[from] Unfit),
    /// The daemon in the background did not become ready.
    #[error("{}", .0.message)]
    Background(Verdict),
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// The daemon has stopped, and could not remove everything.
    #[error("stopped, but these could not be removed: {0}; remove them by hand, or start shmd again as the same user")]
    Left(String),
    /// A descriptor of the daemon's own.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The exit code for an error: the codes of `sysexits.h` where they say more than 1.
pub(crate) fn code(failure: &Failure) -> u8 {
    match failure {
        // Help and version are errors to clap, with code 0.
        Failure::CommandLine(e) => u8::try_from(e.exit_code()).unwrap_or(USAGE),
        Failure::Background(verdict) => verdict.code,
        Failure::Config(e) if e.is_usage() => USAGE,
        // The service manager is to try again.
        Failure::Config(e) if e.may_pass() => FAILED,
        Failure::Config(_) | Failure::Socket(_) => CONFIGURATION,
        Failure::Run(
            Error::Request(RequestError::TimedOut { .. })
            | Error::Reader(ReaderError::TimedOut { .. })
            | Error::Writer(WriterError::TimedOut { .. } | WriterError::WouldBlock { .. })
            | Error::Handoff(HandoffError::TimedOut { .. } | HandoffError::WouldBlock { .. }),
        ) => TEMPORARY,
        Failure::Run(e) if e.system_reason().is_some_and(is_permission) => NOT_PERMITTED,
        Failure::Instance(process::Error::System { source, .. }) | Failure::Io(source) if is_permission(source) => {
            NOT_PERMITTED
        }
        Failure::Instance(process::Error::Unsafe { .. }) => NOT_PERMITTED,
        Failure::Run(_) | Failure::Instance(_) | Failure::Output(_) | Failure::Left(_) | Failure::Io(_) => FAILED,
    }
}

fn is_permission(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Origin;

    fn bad(origin: Origin) -> Failure {
        Failure::Config(config::Error::Bad { origin, reason: "\"much\" is not a size".into() })
    }

    fn unanswered() -> config::Error {
        let origin = Origin::File { path: Path::new("/x").into(), line: 3 };
        config::Error::Unknown { origin, reason: "cannot look up user \"alice\": EIO".into() }
    }

    fn system(errno: nix::errno::Errno) -> Error {
        Error::system("open /dev/shm/x", errno)
    }

    #[test]
    fn each_kind_of_failure_has_its_code() {
        use nix::errno::Errno;
        let lock = "/run/shmd/shmd.lock";
        for (failure, expected) in [
            (bad(Origin::Flag("--capacity".into())), 2),
            (bad(Origin::Variable("SHMD_CAPACITY".into())), 2),
            (bad(Origin::File { path: Path::new("/x").into(), line: 3 }), 78),
            (Failure::Config(config::Error::TooMuch("64 MiB".into())), 78),
            (Failure::Config(unanswered()), 1),
            (Failure::Config(config::Error::File { path: "/x".into(), reason: "gone".into() }), 78),
            (Failure::Run(system(Errno::EACCES)), 77),
            (Failure::Run(system(Errno::ENOSPC)), 1),
            (Failure::Instance(process::Error::Taken { pid: None, dir: "/run/shmd".into(), lock: lock.into() }), 1),
            (Failure::Instance(process::Error::Unsafe { dir: "/tmp".into(), reason: "others".into() }), 77),
            (Failure::Io(Errno::EPERM.into()), 77),
            (Failure::Output(Errno::ENOSPC.into()), 1),
            (Failure::Left("/dev/shm/x".into()), 1),
            (Failure::CommandLine(crate::args::usage("no")), 2),
        ] {
            assert_eq!(code(&failure), expected, "{failure:?}");
            assert!(shm_cli::EXIT_CODES.iter().any(|known| known.code == expected), "{expected} is not in the help");
        }
    }
}
