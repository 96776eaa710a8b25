//! Programs that run and what they leave behind.

use std::borrow::BorrowMut;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{PATIENCE, wait_for, wait_until};

/// A program of the workspace, which cargo puts one directory above the test program.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join(name);
    let missing = "is missing: these tests need all programs, run them with `cargo test --workspace`";
    assert!(path.is_file(), "{} {missing}", path.display());
    path
}

/// Whether a process has a handler for the signal.
pub fn catches(pid: Pid, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// A command without anything of this machine's settings in its environment.
pub fn clean(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHMD_") {
            command.env_remove(name);
        }
    }
    command.env_remove("JOURNAL_STREAM").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a pipe has given so far, read by a thread, so that no program waits for its test, and before each look, so that a look finds
/// what was written before.
#[derive(Debug)]
struct Capture {
    inner: Arc<Mutex<Captured>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Captured {
    pipe: Option<Arc<File>>,
    bytes: Vec<u8>,
}

impl Captured {
    /// Reads what the pipe holds now.
    fn catch_up(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        while let Some(pipe) = &self.pipe {
            match pipe.as_ref().read(&mut buffer) {
                Ok(n @ 1..) => self.bytes.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
    }
}

impl Capture {
    fn of(pipe: Option<impl Into<OwnedFd>>) -> Self {
        let pipe = pipe.map(|pipe| Arc::new(File::from(pipe.into())));
        let inner = Arc::new(Mutex::new(Captured { pipe: pipe.clone(), bytes: Vec::new() }));
        let shared = Arc::clone(&inner);
        let thread = pipe.map(|pipe| {
            // Only this end: the program's is another open file.
            fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            spawn(move || {
                while lock(&shared).pipe.is_some() {
                    let _ = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
                    lock(&shared).catch_up();
                }
            })
        });
        Capture { inner, thread }
    }

    fn so_far(&self) -> Vec<u8> {
        let mut captured = lock(&self.inner);
        captured.catch_up();
        captured.bytes.clone()
    }

    /// Reads to the end of the pipe.
    fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        self.finish();
        std::mem::take(&mut lock(&self.inner).bytes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that runs. It is killed when the test lets go of it.
#[derive(Debug)]
pub struct Proc {
    what: String,
    child: Child,
    ended: Option<ExitStatus>,
    out: Capture,
    err: Capture,
}

impl Proc {
    /// Starts it with its output captured; standard input stays what the command says.
    #[track_caller]
    pub fn spawn(mut command: impl BorrowMut<Command>) -> Self {
        command.borrow_mut().stdout(Stdio::piped());
        Self::spawn_as_is(command)
    }

    /// Starts it with its errors captured; standard input and output stay what the command says.
    #[track_caller]
    pub fn spawn_as_is(mut command: impl BorrowMut<Command>) -> Self {
        command.borrow_mut().stderr(Stdio::piped());
        Self::spawn_untouched(command)
    }

    /// Starts it; standard input, output and error stay what the command says.
    #[track_caller]
    pub fn spawn_untouched(mut command: impl BorrowMut<Command>) -> Self {
        let command = command.borrow_mut();
        let what = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
        let (out, err) = (Capture::of(child.stdout.take()), Capture::of(child.stderr.take()));
        Proc { what, child, ended: None, out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input, which has to be a pipe.
    #[track_caller]
    pub fn feed(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("standard input is a pipe and open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).unwrap_or_else(|e| panic!("{}: {e}", self.what));
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// Takes over its standard input.
    pub fn take_stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("standard input is a pipe and open")
    }

    /// Sends a signal, to this process and no other: it has not been waited for.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "{} has ended: {:?}\n{}", self.what, self.ended, self.err_so_far());
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Stops it as a debugger or a frozen control group would, and returns when it stands.
    #[track_caller]
    pub fn freeze(&mut self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid());
        wait_until("the process stands", || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        });
    }

    /// Lets it go on.
    #[track_caller]
    pub fn thaw(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_none()
    }

    pub fn out_so_far(&self) -> String {
        String::from_utf8_lossy(&self.out.so_far()).into_owned()
    }

    pub fn err_so_far(&self) -> String {
        String::from_utf8_lossy(&self.err.so_far()).into_owned()
    }

    /// Waits until its standard output holds `text`.
    #[track_caller]
    pub fn until_out_has(&mut self, text: &str) {
        self.until_has(text, Self::out_so_far);
    }

    /// Waits until its standard error holds `text`.
    #[track_caller]
    pub fn until_err_has(&mut self, text: &str) {
        self.until_has(text, Self::err_so_far);
    }

    #[track_caller]
    fn until_has(&mut self, text: &str, so_far: fn(&Self) -> String) {
        let found = wait_for(&format!("{text:?} from {}", self.what), || {
            let running = self.is_running();
            let said = so_far(self).contains(text);
            (said || !running).then_some(said)
        });
        // The rest of what a program printed is read after its end.
        assert!(
            found || {
                self.out.finish();
                self.err.finish();
                so_far(self).contains(text)
            },
            "no {text:?} from {self:?}"
        );
    }

    /// Kills it with SIGKILL and waits for that.
    #[track_caller]
    pub fn kill(mut self) -> Run {
        self.signal(Signal::SIGKILL);
        self.wait()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Run {
        self.child.stdin = None;
        let end = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < end, "still running after {PATIENCE:?}: {self:?}");
            sleep(Duration::from_millis(1));
        }
        let status = self.ended.unwrap();
        Run {
            what: self.what.clone(),
            code: status.code(),
            signal: status.signal(),
            out: self.out.rest(),
            err: String::from_utf8_lossy(&self.err.rest()).into_owned(),
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            if std::thread::panicking() {
                eprintln!("--- {} was still running and said:\n{}", self.what, self.err_so_far());
            }
        }
    }
}

/// What a program has left behind.
pub struct Run {
    what: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out: String = self.text().chars().take(4000).collect();
        write!(f, "{}\n code {:?} signal {:?}\n out {out:?}\n err {}", self.what, self.code, self.signal, self.err)
    }
}

impl Run {
    /// Starts a command and waits for its end.
    #[track_caller]
    pub fn of(command: impl BorrowMut<Command>) -> Self {
        Proc::spawn(command).wait()
    }

    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// It ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It ended with 0, wrote this, and had nothing to say on standard error.
    #[track_caller]
    pub fn prints(self, out: &str) {
        assert_eq!(self.quiet().text(), out);
    }

    /// It ended with 0 and had nothing to say on standard error.
    #[track_caller]
    pub fn quiet(self) -> Self {
        assert!(self.code == Some(0) && self.err.is_empty(), "{self:?}");
        self
    }

    /// It ended with this code and a message that holds all of `parts`.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in the message of {self:?}");
        }
        self
    }

    /// As [`fails`](Self::fails), with nothing on standard output.
    #[track_caller]
    pub fn refused(self, code: i32, parts: &[&str]) {
        assert!(self.out.is_empty(), "{self:?}");
        self.fails(code, parts);
    }
}
