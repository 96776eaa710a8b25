//! Peers in C: compiled once a test run, started with names of their own, killed by handle.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use shm_proto::handoff::{Names, Settings};
use shm_proto::os::{named_sem, shm};

/// The compiled peer; nothing where there is no C compiler.
pub(crate) fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/peer.c");
            let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("handoff-peer-{}", std::process::id()));
            compile(&source, &to).then_some(to)
        })
        .as_deref()
}

/// Compiles a C program; says so when that is not possible here.
pub(crate) fn compile(source: &Path, to: &Path) -> bool {
    let gcc = Command::new("gcc").args(["-O2", "-Wall", "-pthread"]).arg(source).arg("-o").arg(to).status();
    match gcc {
        Ok(status) => {
            assert!(status.success(), "gcc does not compile {}", source.display());
            true
        }
        Err(e) => {
            println!("skipped: gcc cannot be started ({e})");
            false
        }
    }
}

/// Names that no other test has; what is left under them is removed at the end.
pub(crate) struct Place(pub(crate) Names);

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("/handoff-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Names::new(&name, &format!("{name}.avail"), &format!("{name}.done")).unwrap())
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new(self.0.clone())
    }

    /// Whether nothing is left under the names.
    pub(crate) fn is_clean(&self) -> bool {
        !shm::exists(&self.0.segment).unwrap()
            && [&self.0.avail, &self.0.done].iter().all(|name| named_sem::identity(&named_sem::path(name)).is_none())
    }

    /// Waits until somebody sleeps on `avail`: the file's second word says how many do.
    pub(crate) fn await_sleeper(&self) {
        let path = named_sem::path(&self.0.avail);
        while std::fs::read(&path).unwrap()[4..8] == [0; 4] {
            std::thread::yield_now();
        }
    }

    /// Starts the peer in a role.
    pub(crate) fn peer(&self, role: &str, rest: &[&str]) -> Peer {
        let names = [&self.0.segment, &self.0.avail, &self.0.done];
        let mut command = Command::new(program().unwrap());
        command.arg(role).args(names).args(rest).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Peer { child, lines }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = shm::unlink(&self.0.segment);
        let _ = named_sem::unlink(&self.0.avail);
        let _ = named_sem::unlink(&self.0.done);
    }
}

/// A running peer; killed when dropped.
pub(crate) struct Peer {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
}

impl Peer {
    /// The next line it prints; empty at its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until it has printed this line.
    pub(crate) fn says(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Waits for its end, which has to be a good one.
    pub(crate) fn ends(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
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
pub(crate) fn pattern(message: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (message * 31 + at * 7 + at / 251) as u8).collect()
}
