//! The real daemon with real shared memory, spoken to through the library.

mod adopt;
mod broken;
mod claims;
mod clients;
mod crowd;
mod handoff;
mod killed;
mod lease;
mod life;
mod limits;
mod log;
mod memory;
mod reload;
mod removal;
mod service;
mod sizes;
mod sources;

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{Client, Done, Endpoint, Request, RequestError};

/// Long enough for a loaded machine; nothing is asserted about how long things take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with a directory and a prefix of its own; killed and cleaned up after at the end.
struct Daemon {
    dir: PathBuf,
    prefix: String,
    config: String,
    child: Option<Child>,
}

impl Daemon {
    /// Not started yet.
    fn configured(name: &str, config: &str) -> Self {
        let prefix = format!("shmd-test-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&prefix);
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        Daemon { dir, prefix, config: config.to_owned(), child: None }
    }

    /// Started and ready.
    fn start(name: &str, config: &str) -> Self {
        let mut daemon = Self::configured(name, config);
        daemon.run(&[]);
        daemon.await_ready();
        daemon
    }

    fn run(&mut self, arguments: &[&str]) {
        let mut command = self.command(arguments);
        self.child = Some(command.spawn().unwrap());
    }

    /// The program with this daemon's configuration, directory, prefix and log.
    fn command(&self, arguments: &[&str]) -> Command {
        fs::write(self.dir.join("shmd.toml"), &self.config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shmd"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SHMD_") {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(self.dir.join("shmd.toml")).arg("--runtime-dir").arg(self.run_dir());
        command.args(["--prefix", &self.prefix]).args(arguments);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// The program run by another one, which has these words before the program's own.
    fn command_within(&self, outer: &[&str], arguments: &[&str]) -> Command {
        let shmd = self.command(arguments);
        let mut command = Command::new(outer[0]);
        command.args(&outer[1..]).arg(shmd.get_program()).args(shmd.get_args());
        for (name, value) in shmd.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Runs it by another program that becomes this one.
    fn run_within(&mut self, outer: &[&str], arguments: &[&str]) {
        self.child = Some(self.command_within(outer, arguments).spawn().unwrap());
    }

    fn await_ready(&mut self) {
        let ready = format!("event=ready pid={} ", self.child.as_ref().unwrap().id());
        self.await_log(|log| log.contains(&ready));
    }

    /// Waits for the log to say something.
    fn await_log(&self, said: impl Fn(&str) -> bool) {
        wait_for(|| said(&self.log()), || self.log());
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn object(&self, channel: &str) -> PathBuf {
        Path::new("/dev/shm").join(format!("{}.{channel}", self.prefix))
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::in_dir(&self.run_dir())
    }

    fn client(&self) -> Client {
        Client::connect(&self.endpoint(), PATIENCE).unwrap()
    }

    fn ask(&self, request: &Request) -> Result<Done, RequestError> {
        self.client().request(request)
    }

    /// The reason for which a request was refused.
    fn refused(&self, request: &Request) -> String {
        self.ask(request).unwrap_err().to_string()
    }

    fn stat(&self) -> ChannelStat {
        match self.ask(&Request::Stat { channel: None }) {
            Ok(Done::Stat(mut stats)) => stats.remove(0),
            other => panic!("{other:?}: {}", self.log()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.child.as_mut().unwrap().stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn end_input(&mut self) {
        drop(self.child.as_mut().unwrap().stdin.take());
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// Waits for the end; its exit code, if it was not killed.
    fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the daemon does not end: {}", self.log());
    }

    fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// That nothing of the daemon is left but its log.
    fn assert_gone(&self) {
        assert!(!self.run_dir().exists(), "{}", self.log());
        let left: Vec<_> = fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&self.prefix)), "{left:?}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.trim_start_matches("sem.").starts_with(&format!("{}.", self.prefix)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What a thread returns, which has to end by itself.
#[track_caller]
fn joined<T>(thread: std::thread::JoinHandle<T>) -> T {
    wait_for(|| thread.is_finished(), || "a thread of the test does not end".to_owned());
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The moment at which patience is at its end, for calls that take one.
fn soon() -> u64 {
    monotonic_ns() + u64::try_from(PATIENCE.as_nanos()).unwrap()
}

/// Waits until something is so; `context` is printed if it never is.
fn wait_for(mut so: impl FnMut() -> bool, context: impl Fn() -> String) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "waited in vain: {}", context());
        sleep(Duration::from_millis(5));
    }
}
