//! The real daemon with real shared memory, spoken to through the library.

mod activation;
mod adopt;
mod broken;
mod claims;
mod clients;
mod content;
mod crashed;
mod create;
mod crowd;
mod deaths;
mod faults;
mod handoff;
mod killed;
mod layouts;
mod lease;
mod life;
mod limits;
mod log;
mod memory;
mod reexec;
mod reload;
mod removal;
mod service;
mod siege;
mod sizes;
mod slow_files;
mod sources;
mod status;
mod steps;
mod timestamps;
mod unread_log;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::Request;
use shm_test_support::{PATIENCE, Place, joined, shared_memory, soon, wait_until};

/// A daemon in a place of its own; killed at the end. Its log is a file, which holds what all daemons of the place have logged.
struct Daemon {
    place: Place,
    config: String,
    child: Option<Child>,
    /// Bytes in the log when this daemon was started.
    logged_before: u64,
}

impl Deref for Daemon {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl DerefMut for Daemon {
    fn deref_mut(&mut self) -> &mut Place {
        &mut self.place
    }
}

impl Daemon {
    /// Not started yet.
    fn configured(name: &str, config: &str) -> Self {
        Daemon { place: Place::named(name), config: config.to_owned(), child: None, logged_before: 0 }
    }

    /// Started and ready.
    fn start(name: &str, config: &str) -> Self {
        let mut daemon = Self::configured(name, config);
        daemon.run(&[]);
        daemon.await_ready();
        daemon
    }

    fn run(&mut self, arguments: &[&str]) {
        self.spawn(self.command(arguments));
    }

    fn spawn(&mut self, mut command: Command) {
        self.logged_before = fs::metadata(self.dir.join("log")).map_or(0, |log| log.len());
        self.child = Some(command.spawn().unwrap());
    }

    /// The program with this daemon's configuration, directory, prefix and log.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.shmd(&self.config);
        command.args(arguments);
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
        self.spawn(self.command_within(outer, arguments));
    }

    fn await_ready(&mut self) {
        // The daemons of a long campaign may get the same number twice.
        let ready = format!("event=ready pid={} ", self.child.as_ref().unwrap().id());
        let is_ready = || {
            let mut log = String::new();
            let mut file = fs::File::open(self.dir.join("log")).unwrap();
            file.seek(SeekFrom::Start(self.logged_before)).unwrap();
            file.read_to_string(&mut log).unwrap();
            log.contains(&ready)
        };
        wait_for(is_ready, || self.log());
    }

    /// Waits for the log to say something.
    fn await_log(&self, said: impl Fn(&str) -> bool) {
        wait_for(|| said(&self.log()), || self.log());
    }

    /// The reason for which a request was refused.
    fn refused(&self, request: &Request) -> String {
        self.ask(request).unwrap_err().to_string()
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
        let log = self.path("log");
        let child = self.child.as_mut().unwrap();
        let log = || format!("the daemon ends: {}", fs::read_to_string(&log).unwrap_or_default());
        let status = shm_test_support::wait_for(log, || child.try_wait().unwrap());
        self.child = None;
        status.code()
    }

    fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// That nothing of the daemon is left but its log.
    fn assert_gone(&self) {
        assert!(!self.run_dir().exists(), "{}", self.log());
        assert_eq!(shared_memory(&self.prefix), Vec::<std::path::PathBuf>::new());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

/// Waits until something is so; `context` is printed if it never is.
#[track_caller]
fn wait_for(so: impl FnMut() -> bool, context: impl Fn() -> String) {
    wait_until(context, so);
}
