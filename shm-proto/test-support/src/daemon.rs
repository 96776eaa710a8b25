//! A daemon of a test's own.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_proto::internal::control::Resized;
use shm_proto::internal::control::stat::{ChannelStat, ReaderState};
use shm_proto::{Done, Endpoint, ErrorKind, Reader, Request, RequestError, Start, Writer};

use crate::place::Place;
use crate::process::{Proc, Run, clean, program};
use crate::wait::{wait_for, wait_until};

/// How a daemon is to be started.
#[derive(Debug)]
pub struct Setup {
    config: String,
    args: Vec<String>,
    stdin: Stdio,
    before: Option<String>,
}

impl Setup {
    /// With this configuration, in TOML.
    pub fn new(config: &str) -> Self {
        Setup { config: config.to_owned(), args: Vec::new(), stdin: Stdio::null(), before: None }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// In a mount namespace of its own, after these shell commands there.
    pub fn after_private_mounts(mut self, script: &str) -> Self {
        self.before = Some(script.to_owned());
        self
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(self) -> Daemon {
        self.start_in(Place::new())
    }

    /// The same, in a place that is there already.
    #[track_caller]
    pub fn start_in(self, place: Place) -> Daemon {
        let mut daemon = Daemon { proc: None, place };
        daemon.launch(self);
        daemon
    }

    /// Runs it to its end, which is expected to come by itself.
    #[track_caller]
    pub fn run_in(self, place: &Place) -> Run {
        Run::of(self.command(place))
    }

    fn command(self, place: &Place) -> Command {
        let mut command = match &self.before {
            None => clean(program("shmd")),
            Some(script) => {
                let mut command = clean("unshare");
                let script = format!("{script}\nexec \"$0\" \"$@\"");
                command.args(["--mount", "sh", "-ec"]).arg(script).arg(program("shmd"));
                command
            }
        };
        place.configured(&mut command, &self.config);
        command.args(&self.args).stdin(self.stdin).env("XDG_RUNTIME_DIR", &place.dir);
        command
    }
}

/// A daemon that answers. When the test lets go of it, it is stopped and nothing may be left.
#[derive(Debug)]
pub struct Daemon {
    proc: Option<Proc>,
    pub place: Place,
}

impl Daemon {
    /// One with this configuration.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Setup::new(config).start()
    }

    /// Starts another daemon where one has ended.
    #[track_caller]
    pub fn launch(&mut self, setup: Setup) {
        assert!(self.proc.is_none(), "there is a daemon already");
        let mut command = setup.command(&self.place);
        command.stdout(Stdio::null());
        let mut proc = Proc::spawn_as_is(command);
        wait_until("the daemon answers", || {
            assert!(proc.is_running(), "the daemon has ended:\n{}", proc.err_so_far());
            self.place.ask(&Request::Ping).is_ok()
        });
        self.proc = Some(proc);
    }

    pub fn pid(&self) -> u32 {
        self.proc.as_ref().map_or(0, Proc::pid)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.proc.as_ref().map(Proc::err_so_far).unwrap_or_default()
    }

    /// Waits until its log holds `text`.
    #[track_caller]
    pub fn until_log(&self, text: &str) {
        wait_until(&format!("{text:?} is in the daemon's log"), || self.log().contains(text));
    }

    pub fn endpoint(&self) -> Endpoint {
        self.place.endpoint()
    }

    /// An attached reader in this process.
    #[track_caller]
    pub fn reader(&self, start: Start) -> Reader {
        Reader::attach(&self.endpoint(), None, start).unwrap()
    }

    /// The writer role, lent to this process. It is free a moment after its last writer has ended.
    #[track_caller]
    pub fn writer(&self) -> Writer {
        wait_for("the writer role is free", || match Writer::attach(&self.endpoint(), None) {
            Err(error) if error.refusal() == Some(ErrorKind::WriterTaken) => None,
            attached => Some(attached.unwrap()),
        })
    }

    /// The figures of its only channel.
    #[track_caller]
    pub fn stat(&self) -> ChannelStat {
        self.place.stat()
    }

    /// Waits until the figures of its only channel are as wanted, and returns them.
    #[track_caller]
    pub fn until_stat(&self, what: &str, wanted: impl Fn(&ChannelStat) -> bool) -> ChannelStat {
        let seen = || format!("{what}; there is {:?}, and the log says\n{}", self.stat(), self.log());
        wait_for(seen, || Some(self.stat()).filter(|stat| wanted(stat)))
    }

    /// Waits until the figures of all channels are as wanted.
    #[track_caller]
    pub fn until_all_stat(&self, what: &str, wanted: impl Fn(&[ChannelStat]) -> bool) {
        wait_for(what, || match self.place.ask(&Request::Stat { channel: None }) {
            Ok(Done::Stat(channels)) => wanted(&channels).then_some(()),
            other => panic!("{other:?}"),
        });
    }

    /// Waits until so many readers have chosen their start.
    #[track_caller]
    pub fn until_readers(&self, count: usize) -> ChannelStat {
        self.until_stat(&format!("{count} readers are attached"), |stat| {
            stat.readers.len() == count && stat.readers.iter().all(|reader| reader.state != ReaderState::Joining)
        })
    }

    /// Asks for a capacity.
    pub fn resize(&self, bytes: u64) -> Result<Resized, RequestError> {
        self.place.resize(bytes)
    }

    /// A `shmctl` that talks to it.
    pub fn shmctl<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = clean(program("shmctl"));
        command.env("SHMD_RUNTIME_DIR", self.place.run_dir()).args(args);
        command
    }

    /// Runs `shmctl` to its end.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> Run {
        Run::of(self.shmctl(args))
    }

    /// Starts `shmctl`.
    #[track_caller]
    pub fn spawn(&self, args: &[&str]) -> Proc {
        Proc::spawn(self.shmctl(args))
    }

    /// Starts `shmctl` with a pipe as its standard input.
    #[track_caller]
    pub fn spawn_piped(&self, args: &[&str]) -> Proc {
        let mut command = self.shmctl(args);
        command.stdin(Stdio::piped());
        Proc::spawn(command)
    }

    /// Runs `shmctl` with its standard output going to a file.
    #[track_caller]
    pub fn spawn_to_file(&self, args: &[&str], file: &Path) -> Proc {
        let mut command = self.shmctl(args);
        command.stdout(File::create(file).unwrap());
        Proc::spawn_as_is(command)
    }

    /// Runs `shmctl` to its end with `input` on its standard input.
    #[track_caller]
    pub fn cli_with_input(&self, args: &[&str], input: &[u8]) -> Run {
        let mut proc = self.spawn_piped(args);
        let mut stdin = proc.take_stdin();
        std::thread::scope(|scope| {
            // A program that ends early leaves the rest unread.
            scope.spawn(move || drop(std::io::Write::write_all(&mut stdin, input)));
            proc.wait()
        })
    }

    /// Publishes the lines of `input` through `shmctl write`.
    #[track_caller]
    pub fn write_lines(&self, input: &str) {
        self.cli_with_input(&["write"], input.as_bytes()).quiet();
    }

    /// Ends it with a signal, expects 0 and nothing left, and returns what it has logged.
    #[track_caller]
    pub fn stop(&mut self, signal: Signal) -> String {
        let mut proc = self.proc.take().expect("the daemon runs");
        proc.signal(signal);
        self.ended(proc)
    }

    /// Waits for the end that it comes to by itself: 0 and nothing left.
    #[track_caller]
    pub fn until_end(&mut self) -> String {
        let proc = self.proc.take().expect("the daemon runs");
        self.ended(proc)
    }

    #[track_caller]
    fn ended(&self, proc: Proc) -> String {
        let run = proc.wait().ok();
        let left = self.place.leftovers();
        assert!(left.is_empty(), "left behind: {left:?}\n{run:?}");
        run.err
    }

    /// Ends it with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        self.proc.take().expect("the daemon runs").kill();
    }

    /// Waits so long that the daemon's answers to something else have surely had their turn. For conditions that must
    /// *not* come about; nothing is concluded from how long it took.
    pub fn let_pass(&self, time: Duration) {
        std::thread::sleep(time);
        self.place.ask(&Request::Ping).expect("the daemon answers");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(mut proc) = self.proc.take() else { return };
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", proc.err_so_far());
        } else {
            proc.signal(Signal::SIGTERM);
            self.ended(proc);
        }
    }
}
