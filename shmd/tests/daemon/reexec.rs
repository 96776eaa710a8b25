//! The daemon executes its file anew, and nobody notices.

mod attached;
mod created;
mod refusals;
mod sources;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shm_proto::internal::control::Reexecuted;
use shm_proto::internal::control::log::LogEvent;
use shm_proto::{Done, Reader, Request, RequestError, Start};
use shm_test_support::program;

use super::{Daemon, PATIENCE, joined, wait_for};

/// How often the program is replaced under load, if `SHMD_KILLS` does not say it.
const TIMES: u32 = 20;
/// A client has to complete a request within this time of connecting, and of the last reply.
const SPEAK: Duration = Duration::from_secs(5);

fn times() -> u32 {
    std::env::var("SHMD_KILLS").ok().and_then(|times| times.parse().ok()).unwrap_or(TIMES)
}

/// What becomes false when it is dropped, so that what runs beside a test ends with it.
struct Running(Arc<AtomicBool>);

impl Running {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Daemon {
    /// Runs a copy of the program, which can be replaced, with these keys of its one channel, where `DIR` is its directory.
    fn copied(name: &str, keys: &str) -> Self {
        let mut daemon = Self::with_source(name, keys);
        daemon.put_copy();
        daemon.run_copy(&[]);
        daemon
    }

    pub(super) fn copy(&self) -> PathBuf {
        self.path("shmd")
    }

    /// Puts the program into the daemon's directory, as an upgrade does.
    pub(super) fn put_copy(&self) {
        let (program, copy) = (program("shmd"), self.copy());
        let _ = fs::remove_file(&copy);
        if fs::hard_link(&program, &copy).is_err() {
            put_file(&program, &copy);
        }
    }

    fn run_copy(&mut self, arguments: &[&str]) {
        // Becomes the copy, with the arguments of the other.
        let script = format!("shift; exec {} \"$@\"", self.copy().display());
        self.run_within(&["sh", "-c", &script, "sh"], arguments);
        self.await_ready();
    }

    fn reexec(&self) -> Result<Reexecuted, RequestError> {
        match self.ask(&Request::Reexec)? {
            Done::Reexec(done) => Ok(done),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn must_reexec(&self) {
        let pid = self.child.as_ref().unwrap().id();
        let done = self.reexec().unwrap_or_else(|e| panic!("{e}: {}", self.log()));
        assert_eq!(done.pid, pid);
    }

    /// Descriptors that it has open.
    fn open_files(&self) -> Vec<String> {
        let dir = format!("/proc/{}/fd", self.child.as_ref().unwrap().id());
        let mut open: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .flatten()
            .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
            .map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit() || c == ']' || c == '[').to_owned())
            .collect();
        open.sort();
        open
    }
}

/// Copies a file that is to be executed. Not by this process: while it has the file open for writing, another test may fork.
fn put_file(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

/// Reads every message until the channel closes, and hands each to `check`. Nothing may be lost on the way.
fn reading(daemon: &Daemon, mut check: impl FnMut(&str) + Send + 'static) -> JoinHandle<String> {
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    thread::spawn(move || {
        let (mut bytes, mut next) = (Vec::new(), 0);
        loop {
            match reader.recv_into(&mut bytes, Some(PATIENCE)) {
                Ok(received) => assert_eq!((received.seq, received.lost_before), (next, 0)),
                Err(error) => return error.to_string(),
            }
            next += 1;
            check(std::str::from_utf8(&bytes).unwrap());
        }
    })
}

fn is_of(path: &Path, end: &str) -> bool {
    fs::read_link(path).is_ok_and(|link| link.to_string_lossy().ends_with(end))
}

#[test]
fn the_process_stays_and_so_do_its_lock_its_socket_and_its_descriptors() {
    let mut daemon = Daemon::copied("reexec", "");
    let reading = reading(&daemon, |_| {});
    let is_back = |daemon: &Daemon| daemon.stat().readers.len() == 1;
    let pid = daemon.child.as_ref().unwrap().id();
    daemon.must_reexec();
    wait_for(|| is_back(&daemon), || daemon.log());
    let before = daemon.open_files();
    for _ in 0..times() {
        daemon.put_copy();
        let inode = fs::metadata(daemon.run_dir().join("shmd.lock")).unwrap();
        daemon.must_reexec();
        assert!(is_of(Path::new(&format!("/proc/{pid}/exe")), "/shmd"), "an upgrade is not the deleted file");
        let now = fs::metadata(daemon.run_dir().join("shmd.lock")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&inode), std::os::unix::fs::MetadataExt::ino(&now));
    }
    wait_for(|| is_back(&daemon), || daemon.log());
    // What a connection needed for a moment may have been among them.
    let is_no_more = || daemon.open_files().len() <= before.len();
    wait_for(is_no_more, || format!("{before:#?}\n{:#?}", daemon.open_files()));
    let entries = match daemon.ask(&Request::Log { channel: None, since: 0, last: None, follow: false }).unwrap() {
        Done::Log(entries) => entries,
        other => panic!("{other:?}"),
    };
    let of = |event: &LogEvent| entries.iter().filter(|entry| entry.event == *event).count();
    assert_eq!(of(&LogEvent::Reexec), times() as usize + 1, "{}", daemon.log());
    assert_eq!((of(&LogEvent::Died), of(&LogEvent::Move), of(&LogEvent::Broken)), (0, 0, 0), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert_eq!(joined(reading), "channel main is closed");
    daemon.assert_gone();
}

#[test]
fn a_request_that_has_begun_is_answered_by_the_next_program() {
    let mut daemon = Daemon::copied("reexec-request", "");
    let connect = || {
        let stream = UnixStream::connect(daemon.run_dir().join("shmd.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut half = connect();
    let (mut answered, mut since) = (0, Instant::now());
    while answered < times() {
        // Answered before, so that the daemon knows the connection; then half a request.
        let written = half.write_all(b"{\"v\":1,\"op\":\"ping\"}\n{\"v\":1,\"op\"");
        let got = written.and_then(|()| line(&mut half)).and_then(|answer| {
            assert!(answer.contains("\"ping\""), "{answer}");
            let late = connect();
            daemon.must_reexec();
            half.write_all(b":\"list\"}\n")?;
            let answer = line(&mut half);
            drop(late);
            answer
        });
        match got {
            Ok(answer) if answer.contains("\"list\"") => answered += 1,
            // A request has to be complete within five seconds, which a busy machine may need for something else.
            late if since.elapsed() >= SPEAK => {
                assert!(late.is_err() || late.is_ok_and(|answer| answer.contains("within 5 s")));
                half = connect();
            }
            wrong => panic!("{wrong:?} {}", daemon.log()),
        }
        since = Instant::now();
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    String::from_utf8(line).map_err(io::Error::other)
}

#[test]
fn a_signal_that_comes_meanwhile_ends_the_daemon_and_nothing_is_left() {
    for n in 0..times() {
        let mut daemon = Daemon::copied("reexec-signal", "source = \"fifo:DIR/in\"");
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| daemon.ask(&Request::Reexec));
            thread::sleep(Duration::from_millis(u64::from(n) * 3));
            daemon.signal(Signal::SIGTERM);
            asking.join().unwrap()
        });
        assert_eq!(daemon.wait(), Some(0), "{asked:?}: {}", daemon.log());
        daemon.assert_gone();
        assert!(!daemon.path("in").exists(), "{}", daemon.log());
    }
}

#[test]
fn a_daemon_in_the_background_with_relative_paths_is_replaced_too() {
    let daemon = Daemon::with_source("reexec-background", "");
    daemon.put_copy();
    let mut command = daemon.command(&[]);
    fs::write(daemon.path("shmd.toml"), &daemon.config).unwrap();
    let arguments = ["--config", "shmd.toml", "--runtime-dir", "run", "--prefix", &daemon.prefix, "--daemonize"];
    command = {
        let mut copy = Command::new(daemon.copy());
        copy.args(arguments).args(["--log-file", "log", "--pid-file", "pid", "--umask", "022"]);
        copy.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        copy.current_dir(&*daemon.dir).env_remove("NOTIFY_SOCKET");
        copy
    };
    assert!(command.status().unwrap().success(), "{}", daemon.log());
    let pid: i32 = fs::read_to_string(daemon.path("pid")).unwrap().trim().parse().unwrap();
    let end = Background(pid);
    for _ in 0..3 {
        daemon.put_copy();
        let done = daemon.reexec().unwrap_or_else(|e| panic!("{e}: {}", daemon.log()));
        assert_eq!(done.pid.cast_signed(), pid);
    }
    drop(end);
    wait_for(|| !daemon.path("pid").exists() && !daemon.run_dir().exists(), || daemon.log());
}

/// A daemon that is nobody's child.
struct Background(i32);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0), Signal::SIGTERM);
    }
}
