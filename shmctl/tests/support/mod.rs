//! A runtime directory of the test's own, the real `shmctl`, and a stand-in for the daemon that answers as it is told.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::process::Proc;
use shm_proto::internal::client::SOCKET_NAME;
use shm_proto::internal::control::{Conn, MAX_REQUEST, Received, Reply, decode};
use shm_proto::{Done, ErrorKind, Refusal, Request};

/// Removed with everything in it at the end of the test.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shmctl-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET_NAME)
    }

    /// `shmctl` with these words, in this directory and nothing of the caller's.
    pub(crate) fn shmctl(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shmctl"));
        command.args(words.split_whitespace()).env_clear().env("SHMD_RUNTIME_DIR", &self.0).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &str) -> Ran {
        Ran::of(words, self.start(words))
    }

    pub(crate) fn start(&self, words: &str) -> Proc {
        Proc::spawn(self.shmctl(words))
    }

    /// Answers every request on every connection with what `answer` makes of it, as long as the test runs.
    pub(crate) fn serve(&self, answer: impl Fn(Request) -> Reply + Send + Clone + 'static) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut conn, answer) = (Conn::new(socket.unwrap(), MAX_REQUEST), answer.clone());
                thread::spawn(move || {
                    loop {
                        match conn.receive().unwrap() {
                            Received::Line(line, _) => conn.send(&answer(decode(&line).unwrap()), &[]).unwrap(),
                            Received::Nothing => wait_for_input(&conn),
                            Received::Closed => return,
                        }
                    }
                });
            }
        });
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wait_for_input(conn: &Conn) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let _ = poll(&mut [PollFd::new(conn.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
}

/// How a run of `shmctl` ended.
#[derive(Debug)]
pub(crate) struct Ran {
    words: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Waits for its end.
    pub(crate) fn of(words: &str, proc: Proc) -> Self {
        let run = proc.wait();
        Ran { words: words.to_owned(), code: run.code, out: run.text(), err: run.err }
    }

    /// It failed with this code, said all of `texts` on standard error and nothing on standard output.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "shmctl {}: {self:?}", self.words);
        assert!(texts.iter().all(|text| self.err.contains(text)), "shmctl {}: {texts:?} in {self:?}", self.words);
        assert_eq!(self.out, "", "shmctl {}: {self:?}", self.words);
    }

    /// It ended with 0, wrote this and said nothing.
    #[track_caller]
    pub(crate) fn prints(&self, out: &str) {
        assert_eq!(
            (self.code, self.out.as_str(), self.err.as_str()),
            (Some(0), out, ""),
            "shmctl {}: {self:?}",
            self.words
        );
    }
}

pub(crate) fn ok(done: Done) -> Reply {
    Reply::Ok(done)
}

pub(crate) fn refuse(kind: ErrorKind, message: &str) -> Reply {
    let channels = vec!["cam".parse().unwrap(), "imu".parse().unwrap()];
    let channels = if kind == ErrorKind::NoSuchChannel { channels } else { Vec::new() };
    Reply::Error(Refusal::new(kind, message).with_channels(channels))
}
