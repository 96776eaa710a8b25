//! What ends a command, and its exit code: in one place.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use shm_cli::did_you_mean;
use shm_proto::{ChannelName, Error, ErrorKind, HandoffError, ReaderError, RequestError, WriterError};

use crate::colour::{self, Colour};
use crate::exit_code::{BAD_CONFIG, FAILED, IN_PART, NO_DAEMON, NOT_PERMITTED, USAGE, WOULD_BLOCK};
use crate::terminal::{folded, size};

/// A command's result.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command failed or ended early.
#[derive(Debug)]
pub enum Failure {
    /// An error of the library, or a refusal of the daemon.
    Library(Error),
    /// The reader of the output has gone: the quiet end of a pipeline.
    OutputClosed,
    /// The output cannot be written.
    Output(io::Error),
    /// An argument that the command line parser could not judge by itself.
    Usage(String),
    /// Something other than the system or the daemon does not permit this, such as a server that a companion connects to.
    NotPermitted(String),
    /// A reload took effect, except for this number of keys.
    Kept(usize),
    /// The doctor has found something and shown it. The exit code is for monitoring.
    Found(u8),
    /// Anything else, in a sentence.
    Other(String),
}

impl Failure {
    /// The exit code; [`crate::exit_code`] says what each means.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::OutputClosed => 0,
            Failure::Found(code) => *code,
            Failure::Usage(_) => USAGE,
            Failure::NotPermitted(_) => NOT_PERMITTED,
            Failure::Kept(_) => IN_PART,
            Failure::Output(_) | Failure::Other(_) => FAILED,
            Failure::Library(error) => match error {
                Error::Request(RequestError::NoDaemon { .. })
                | Error::Reader(ReaderError::Disconnected { .. })
                | Error::Handoff(HandoffError::Disconnected { .. }) => NO_DAEMON,
                Error::Request(RequestError::TimedOut { .. })
                | Error::Reader(ReaderError::TimedOut { .. })
                | Error::Writer(
                    WriterError::TimedOut { .. }
                    | WriterError::WouldBlock { .. }
                    | WriterError::Unacknowledged { ended: None, .. },
                )
                | Error::Handoff(
                    HandoffError::TimedOut { .. } | HandoffError::WouldBlock { .. } | HandoffError::Locked { .. },
                ) => WOULD_BLOCK,
                Error::BadSize(_)
                | Error::BadDuration(_)
                | Error::BadFraming(_)
                | Error::BadName(_)
                | Error::BadObjectName(_)
                | Error::BadContent(_) => USAGE,
                Error::Request(RequestError::Refused(refusal)) => match refusal.kind {
                    ErrorKind::NotPermitted => NOT_PERMITTED,
                    ErrorKind::BadConfig => BAD_CONFIG,
                    kind if kind.is_temporary() => WOULD_BLOCK,
                    _ => FAILED,
                },
                error => match error.system_reason() {
                    Some(reason) if reason.kind() == io::ErrorKind::PermissionDenied => NOT_PERMITTED,
                    _ => FAILED,
                },
            },
        }
    }

    /// A measurement's.
    pub(crate) fn of_bench(failure: shm_bench::Failure) -> Self {
        match failure {
            shm_bench::Failure::Library(error) => Failure::Library(error),
            other => Failure::Other(other.to_string()),
        }
    }

    /// Reports the failure on standard error, unless it is a quiet one. `named`: the channels that the command is about.
    pub fn tell(&self, named: &[ChannelName]) {
        match self {
            Failure::OutputClosed | Failure::Found(_) => {}
            Failure::Kept(_) => note(&self.to_string()),
            _ => tell("error", Style::Bad, &(self.to_string() + &self.way_out(named))),
        }
    }

    /// The option of this program that helps, or the channel that is probably meant. The library and the daemon do not name
    /// options, because they have other users.
    fn way_out(&self, named: &[ChannelName]) -> String {
        match self {
            Failure::Library(Error::Request(RequestError::NoDaemon { .. })) => " or --runtime-dir".to_owned(),
            Failure::Library(Error::Request(RequestError::Refused(refusal)))
                if refusal.kind == ErrorKind::NoSuchChannel =>
            {
                if named.is_empty() {
                    let may_name = if refusal.channels.is_empty() { "" } else { " with --channel" };
                    return may_name.to_owned();
                }
                let missing = named.iter().find(|name| !refusal.channels.contains(name));
                let there = refusal.channels.iter().map(|name| name.as_str());
                missing.map(|name| did_you_mean(name.as_str(), there)).unwrap_or_default()
            }
            _ => String::new(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => {
                write!(f, "{error}")?;
                if let Error::Request(RequestError::Refused(refusal)) = error {
                    let names: Vec<_> = refusal.channels.iter().map(ToString::to_string).collect();
                    // A daemon may have worked the names into its sentence.
                    if !names.iter().all(|name| refusal.message.contains(name)) {
                        write!(f, " (channels: {})", names.join(", "))?;
                    }
                }
                Ok(())
            }
            Failure::OutputClosed => f.write_str("the output was closed"),
            Failure::Found(_) => f.write_str("the doctor has found something"),
            Failure::Output(source) => write!(f, "cannot write to standard output: {source}"),
            Failure::Kept(1) => f.write_str("1 key was not changed; the output names it and the reason"),
            Failure::Kept(keys) => write!(f, "{keys} keys were not changed; the output names them and the reasons"),
            Failure::Usage(text) | Failure::NotPermitted(text) | Failure::Other(text) => f.write_str(text),
        }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Library(error.into())
    }
}

/// Reports something that does not end the command.
pub fn note(text: &str) {
    tell("note", Style::Plain, text);
}

#[derive(Clone, Copy)]
enum Style {
    Bad,
    Plain,
}

fn tell(what: &str, style: Style, text: &str) {
    let mut stderr = io::stderr().lock();
    let what = format!("{what}:");
    let shown = match style {
        _ if !colour::wanted(stderr.is_terminal()) => what.clone(),
        Style::Bad => Colour::BoldRed.paint(&what),
        Style::Plain => Colour::Bold.paint(&what),
    };
    let columns = size(&stderr).map(|size| size.columns);
    let plain: String = format!("shmctl: {what} {text}").lines().map(|line| folded(line, 2, columns)).collect();
    // If standard error is closed, there is no place to report that.
    let _ = stderr.write_all(plain.replacen(&what, &shown, 1).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shm_proto::{Blocked, ProtocolError, Refusal, SystemError};

    use super::*;

    fn refused(kind: ErrorKind, message: &str, channels: &[&str]) -> Failure {
        let channels = channels.iter().map(|name| name.parse().unwrap()).collect();
        RequestError::Refused(Refusal::new(kind, message).with_channels(channels)).into()
    }

    fn unacknowledged(ended: Option<&str>) -> Failure {
        let ended = ended.map(str::to_owned);
        WriterError::Unacknowledged {
            channel: "main".into(),
            seq: 7,
            behind: 1,
            readers: 2,
            waited: Duration::ZERO,
            ended,
        }
        .into()
    }

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        let channel = || "main".to_owned();
        let denied = || SystemError::new("connect", io::Error::from(io::ErrorKind::PermissionDenied));
        for (failure, code) in [
            (Failure::OutputClosed, 0),
            (Failure::Output(io::Error::other("full")), 1),
            (Failure::Usage("--sizes 4".into()), 2),
            (Failure::NotPermitted("the server".into()), 77),
            (Failure::Kept(1), 3),
            (RequestError::NoDaemon { socket: "/x".into(), reason: "absent".into() }.into(), 69),
            (ReaderError::Disconnected { channel: channel() }.into(), 69),
            (HandoffError::Disconnected { channel: channel() }.into(), 69),
            (RequestError::TimedOut { what: "an answer".into(), waited: Duration::ZERO }.into(), 75),
            (ReaderError::TimedOut { what: "a message".into(), waited: Duration::ZERO }.into(), 75),
            (WriterError::TimedOut { what: "space".into(), waited: Duration::ZERO }.into(), 75),
            (HandoffError::TimedOut { what: "a message".into(), waited: Duration::ZERO }.into(), 75),
            (HandoffError::Locked { segment: channel(), holder: "pid 7".into() }.into(), 75),
            (
                WriterError::WouldBlock { channel: channel(), reason: Blocked::Readers { attached: 0, wanted: 1 } }
                    .into(),
                75,
            ),
            (unacknowledged(None), 75),
            (unacknowledged(Some("the role was taken back")), 1),
            (denied().into(), 77),
            (HandoffError::System(denied()).into(), 77),
            (RequestError::Protocol(ProtocolError::System(denied())).into(), 77),
            (SystemError::new("connect", io::Error::from(io::ErrorKind::NotFound)).into(), 1),
            (ReaderError::Evicted { channel: channel(), reason: "slow".into() }.into(), 1),
            (WriterError::TooLarge { channel: channel(), len: 2, limit: 1 }.into(), 1),
            (ProtocolError::Version { theirs: 2, ours: 1 }.into(), 1),
            (refused(ErrorKind::NotPermitted, "no", &[]), 77),
            (refused(ErrorKind::WriterTaken, "pid 7", &[]), 75),
            (refused(ErrorKind::TooMany, "64", &[]), 75),
            (refused(ErrorKind::TryLater, "in 2 s", &[]), 75),
            (refused(ErrorKind::NoSuchChannel, "no", &[]), 1),
            (refused(ErrorKind::OutOfRange, "max", &[]), 1),
            (refused(ErrorKind::ChannelExists, "cam", &[]), 1),
            (refused(ErrorKind::Configured, "cam", &[]), 1),
            (refused(ErrorKind::OtherContent, "json", &[]), 1),
            (refused(ErrorKind::BadConfig, "shmd.toml:3", &[]), 78),
            (refused(ErrorKind::NoSpace, "free", &[]), 1),
            (refused(ErrorKind::Unknown, "from a newer daemon", &[]), 1),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure}");
        }
    }

    #[test]
    fn the_options_that_help_are_added_to_what_the_library_and_the_daemon_say() {
        let absent = Failure::from(RequestError::NoDaemon { socket: "/x".into(), reason: "absent".into() });
        assert!(!absent.to_string().contains("--"), "{absent}");
        assert_eq!(absent.way_out(&[]), " or --runtime-dir");
        let several = refused(ErrorKind::NoSuchChannel, "several channels: name one of a, b", &["a", "b"]);
        let named = |name: &str| [name.parse().unwrap()];
        assert_eq!([several.way_out(&[]), several.way_out(&named("lidar"))], [" with --channel", ""]);
        let none = refused(ErrorKind::NoSuchChannel, "several channels, and this user may use none of them", &[]);
        assert_eq!(none.way_out(&[]), "");
    }

    #[test]
    fn a_name_that_is_nearly_right_is_corrected() {
        let missing = refused(ErrorKind::NoSuchChannel, "no channel named cma; channels: cam, imu", &["cam", "imu"]);
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(missing.way_out(&names(&["cma"])), "; did you mean cam?");
        assert_eq!(missing.way_out(&names(&["imu", "cma"])), "; did you mean cam?");
        assert_eq!(missing.way_out(&names(&["lidar"])), "");
    }

    #[test]
    fn a_refusal_lists_the_channels_once() {
        let without = refused(ErrorKind::NoSuchChannel, "no channel \"x\"", &["cam", "imu"]);
        assert_eq!(without.to_string(), "no channel \"x\" (channels: cam, imu)");
        let with = refused(ErrorKind::NoSuchChannel, "no channel \"x\"; there are cam and imu", &["cam", "imu"]);
        assert_eq!(with.to_string(), "no channel \"x\"; there are cam and imu");
    }
}
