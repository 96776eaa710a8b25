//! A runtime directory of the test's own, the real `shmctl`, and a stand-in for the daemon that answers as it is told.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use shm_proto::internal::client::SOCKET_NAME;
use shm_proto::internal::control::{Conn, MAX_REQUEST, Received, Reply, decode};
use shm_proto::{Done, ErrorKind, Refusal, Request};
use shm_test_support::{Proc, Run, TempDir, program};

pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Dir(TempDir::new())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join(SOCKET_NAME)
    }

    /// `shmctl` with these words, in this directory and nothing of the caller's.
    pub(crate) fn shmctl(&self, words: &str) -> Command {
        let mut command = Command::new(program("shmctl"));
        command.args(words.split_whitespace()).env_clear().env("SHMD_RUNTIME_DIR", &self.0).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &str) -> Run {
        self.start(words).wait()
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

fn wait_for_input(conn: &Conn) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let _ = poll(&mut [PollFd::new(conn.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
}

pub(crate) fn ok(done: Done) -> Reply {
    Reply::Ok(done)
}

pub(crate) fn refuse(kind: ErrorKind, message: &str) -> Reply {
    let channels = vec!["cam".parse().unwrap(), "imu".parse().unwrap()];
    let channels = if kind == ErrorKind::NoSuchChannel { channels } else { Vec::new() };
    Reply::Error(Refusal::new(kind, message).with_channels(channels))
}
