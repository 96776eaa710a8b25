//! The log: one line per event, to standard error, to the journal behind it, to a file or to syslog.

mod outlet;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use env_logger::{Builder, WriteStyle};
use log::{Level, LevelFilter};
use shm_cli::colours_are_wanted;
use shm_proto::internal::os::file_id::FileId;

use outlet::Outlet;

/// Where syslog listens.
const SYSLOG: &str = "/dev/log";
/// The facility of system daemons, as syslog adds it to the priority.
const FACILITY: u8 = 3 << 3;

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard error.
    Stderr,
    /// `/dev/log`.
    Syslog,
    /// Appended to a file.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stderr" => Ok(Target::Stderr),
            "syslog" => Ok(Target::Syslog),
            _ => match text.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Target::File(path.into())),
                _ => Err(format!("{text:?} is not stderr, syslog or file:PATH")),
            },
        }
    }
}

/// The log file. Each attempt to reload opens it again, so that it can be rotated.
static FILE: Mutex<Option<(PathBuf, File)>> = Mutex::new(None);

fn file() -> MutexGuard<'static, Option<(PathBuf, File)>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the log.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn start(level: LevelFilter, target: &Target) -> io::Result<()> {
    let mut builder = Builder::new();
    // The level is the log's own, because a reload may change it.
    builder.filter_level(LevelFilter::Trace).format_target(false).format_timestamp_millis();
    match target {
        // The journal adds its own times and shows no colour; it takes a line's priority from the line.
        Target::Stderr if stderr_is_journal() => {
            builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args()));
            let mark = format!("<{}>", priority(Level::Warn));
            builder.target(env_logger::Target::Pipe(Box::new(Outlet::new(io::stderr(), mark))));
        }
        Target::Stderr => {
            if colours_are_wanted(io::stderr().is_terminal()) {
                builder.write_style(WriteStyle::Always);
            }
            builder.target(env_logger::Target::Pipe(Box::new(Outlet::new(io::stderr(), String::new()))));
        }
        Target::Syslog => {
            let tag = format!("shmd[{}]", std::process::id());
            // Without a time of its own: the receiver adds one, and knows the time zone.
            builder.format(move |out, record| {
                write!(out, "<{}>{tag}: {}", FACILITY | priority(record.level()), record.args())
            });
            builder.target(env_logger::Target::Pipe(Box::new(Syslog { socket: None })));
        }
        Target::File(path) => {
            *file() = Some((path.clone(), open_named(path)?));
            builder.target(env_logger::Target::Pipe(Box::new(ToFile)));
        }
    }
    // After a second start the first log stays, which is fine.
    let _ = builder.try_init();
    log::set_max_level(level);
    Ok(())
}

/// That [`start`] would find the file.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn check(target: &Target) -> io::Result<()> {
    if let Target::File(path) = target { open_named(path).map(drop) } else { Ok(()) }
}

/// Opens the file again.
pub(crate) fn reopen() {
    let mut file = file();
    let Some((path, present)) = &mut *file else { return };
    match open(path) {
        Ok(new) => *present = new,
        Err(e) => {
            let path = path.clone();
            // The log takes the lock that is held here.
            drop(file);
            log::warn!("the log goes on in the old file, because {} cannot be opened: {e}", path.display());
        }
    }
}

/// Says on standard error why the program ends, also where there is no log yet.
pub(crate) fn last_words(reason: &str) {
    let mut text = String::new();
    // The journal takes each line for an entry.
    let mark = format!("<{}>", priority(Level::Error));
    let mark = if stderr_is_journal() { mark.as_str() } else { "" };
    format!("shmd: {reason}").lines().for_each(|line| text.extend([mark, line, "\n"]));
    // There is no other place to report that standard error is closed.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn stderr_is_journal() -> bool {
    is_journal(std::env::var_os("JOURNAL_STREAM").as_deref(), io::stderr())
}

/// The numbers of `syslog(3)`.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn open_named(path: &Path) -> io::Result<File> {
    open(path).map_err(|e| io::Error::new(e.kind(), format!("log file {}: {e}", path.display())))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

/// The file of [`FILE`].
struct ToFile;

impl Write for ToFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *file() {
            Some((_, file)) => file.write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The system's log. Connected at the first line, and again after a restart of its daemon.
struct Syslog {
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn connect() -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSLOG)?;
        // Losing a line is better than a daemon that waits for its log.
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl Write for Syslog {
    /// One datagram per line; a line that cannot be delivered is lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = Self::connect().ok();
            }
            match self.socket.as_ref().map(|socket| socket.send(line)) {
                Some(Err(e)) if e.kind() != io::ErrorKind::WouldBlock => self.socket = None,
                _ => break,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether `fd` is the stream that `JOURNAL_STREAM` names as `device:inode`: the variable is inherited by programs whose
/// standard error goes elsewhere.
fn is_journal(stream: Option<&OsStr>, fd: impl AsFd) -> bool {
    let named = stream.and_then(OsStr::to_str).and_then(|text| text.split_once(':'));
    let Some((Ok(device), Ok(inode))) = named.map(|(device, inode)| (device.parse(), inode.parse())) else {
        return false;
    };
    FileId::of(fd) == Ok(FileId { device, inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_systemd_names_is_the_journal() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let id = FileId::of(&file).unwrap();
        let named = format!("{}:{}", id.device, id.inode);
        assert!(is_journal(Some(named.as_ref()), &file));
        for other in [None, Some("1:2"), Some("journal"), Some("")] {
            assert!(!is_journal(other.map(OsStr::new), &file), "{other:?}");
        }
    }

    #[test]
    fn a_target_is_written_as_stderr_syslog_or_a_file() {
        assert_eq!("stderr".parse(), Ok(Target::Stderr));
        assert_eq!("syslog".parse(), Ok(Target::Syslog));
        assert_eq!("file:/var/log/shmd".parse(), Ok(Target::File("/var/log/shmd".into())));
        for text in ["", "file:", "journal", "/var/log/shmd"] {
            assert!(text.parse::<Target>().unwrap_err().contains(text), "{text}");
        }
    }
}
