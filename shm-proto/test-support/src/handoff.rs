//! The objects of a handoff without a daemon, and peers in C.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use shm_proto::internal::handoff::{Names, Settings};
use shm_proto::internal::os::{named_sem, shm};

use crate::c::compile;
use crate::dir::{TempDir, unique};
use crate::process::clean;
use crate::wait::{PATIENCE, wait_until};

/// The compiled peer, a file without a name; nothing where there is no C compiler.
fn compiled() -> Option<&'static File> {
    static PROGRAM: OnceLock<Option<File>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/c/peer.c");
            // The user who runs the tests may not be able to write where they were built.
            let dir = TempDir::new();
            let to = dir.join("peer");
            compile(&source, &to).then(|| File::open(&to).unwrap())
        })
        .as_ref()
}

/// Names that no other test has; what is left under them is removed at the end.
pub struct Handoff(pub Names);

impl Handoff {
    /// No object exists yet.
    #[expect(clippy::new_without_default, reason = "each has names of its own")]
    pub fn new() -> Self {
        let name = format!("/{}", unique("handoff"));
        Self(Names::new(&name, &format!("{name}.avail"), &format!("{name}.done")).unwrap())
    }

    /// Whether there are peers in C here. If there are none, a note says so.
    pub fn has_peers() -> bool {
        compiled().is_some()
    }

    /// Patient: a message that is offered again because a busy machine has let its reader wait would be read twice.
    pub fn settings(&self) -> Settings {
        Settings { ack_timeout: PATIENCE, ..Settings::new(self.0.clone()) }
    }

    pub fn names(&self) -> [&str; 3] {
        [&self.0.segment, &self.0.avail, &self.0.done]
    }

    pub fn paths(&self) -> [String; 3] {
        [format!("/dev/shm{}", self.0.segment), named_sem::path(&self.0.avail), named_sem::path(&self.0.done)]
    }

    /// Whether nothing is left under the names.
    pub fn is_clean(&self) -> bool {
        self.paths().iter().all(|path| !Path::new(path).exists())
    }

    /// Waits until a writer has made everything: the semaphores come last.
    #[track_caller]
    pub fn await_objects(&self) {
        wait_until("the objects are there", || {
            self.paths().iter().all(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0))
        });
    }

    /// Waits until a message is on offer: the first word of the file is the value of `avail`.
    #[track_caller]
    pub fn await_offer(&self) {
        let path = named_sem::path(&self.0.avail);
        wait_until("a message is on offer", || {
            fs::read(&path).is_ok_and(|cell| cell.len() >= 8 && cell[..4] != [0; 4])
        });
    }

    /// Waits until a reader sleeps on `avail`: the second word of the file is the number of sleepers.
    #[track_caller]
    pub fn await_sleeper(&self) {
        let path = named_sem::path(&self.0.avail);
        wait_until("a reader sleeps", || fs::read(&path).is_ok_and(|cell| cell.len() >= 8 && cell[4..8] != [0; 4]));
    }

    /// The peer in C in a role.
    pub fn peer_command(&self, role: &str, rest: &[&str]) -> Command {
        let mut command = clean(format!("/proc/self/fd/{}", compiled().unwrap().as_raw_fd()));
        command.arg(role).args(self.names()).args(rest);
        command
    }

    /// Starts the peer in a role, and reads its output line by line.
    pub fn peer(&self, role: &str, rest: &[&str]) -> Peer {
        let mut child = self.peer_command(role, rest).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Peer { child, lines }
    }
}

impl Drop for Handoff {
    fn drop(&mut self) {
        let _ = shm::unlink(&self.0.segment);
        let _ = named_sem::unlink(&self.0.avail);
        let _ = named_sem::unlink(&self.0.done);
    }
}

/// A running peer; killed when dropped. It ends by itself after a few minutes, whatever becomes of its test.
pub struct Peer {
    pub child: Child,
    lines: BufReader<ChildStdout>,
}

impl Peer {
    /// The next line that the peer prints; empty at its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until the peer has printed this line.
    #[track_caller]
    pub fn says(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Waits for the end, which has to be a good one.
    #[track_caller]
    pub fn ends(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// SIGKILL, and waits until the peer is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message as the peer makes and checks it.
pub fn pattern(message: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (message * 31 + at * 7 + at / 251) as u8).collect()
}
