//! Peers in C: compiled once a test run, started with names of their own, killed by handle.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use shm_proto::internal::handoff::{Names, Settings};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::os::{named_sem, shm};

/// Nothing takes so long. A peer in C lives no longer than a few times that, whatever becomes of its test.
const PATIENCE: Duration = Duration::from_secs(60);

/// The moment at which patience is at its end.
pub(crate) fn soon() -> u64 {
    monotonic_ns() + u64::try_from(PATIENCE.as_nanos()).unwrap()
}

/// The compiled peer, a file without a name; nothing where there is no C compiler.
fn compiled() -> Option<&'static File> {
    static PROGRAM: OnceLock<Option<File>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/peer.c");
            // Whoever runs the tests may not be able to write where they were built.
            let to = std::env::temp_dir().join(format!("handoff-peer-{}", std::process::id()));
            let made = compile(&source, &to).then(|| File::open(&to).unwrap());
            let _ = std::fs::remove_file(to);
            made
        })
        .as_ref()
}

/// Whether there are peers in C here; it is said when there are none.
pub(crate) fn has_peers() -> bool {
    compiled().is_some()
}

/// Compiles a C program; says so when that is not possible here.
fn compile(source: &Path, to: &Path) -> bool {
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

    /// Patient: a message that is offered again because a busy machine has let its reader wait would be read twice.
    pub(crate) fn settings(&self) -> Settings {
        Settings { ack_timeout: PATIENCE, ..Settings::new(self.0.clone()) }
    }

    /// Whether nothing is left under the names.
    pub(crate) fn is_clean(&self) -> bool {
        !shm::exists(&self.0.segment).unwrap()
            && [&self.0.avail, &self.0.done].iter().all(|name| named_sem::identity(&named_sem::path(name)).is_none())
    }

    /// Waits until somebody sleeps on `avail`: the file's second word says how many do.
    pub(crate) fn await_sleeper(&self) {
        let (path, end) = (named_sem::path(&self.0.avail), Instant::now() + PATIENCE);
        while std::fs::read(&path).unwrap()[4..8] == [0; 4] {
            assert!(Instant::now() < end, "nobody sleeps");
            std::thread::yield_now();
        }
    }

    /// Starts the peer in a role.
    pub(crate) fn peer(&self, role: &str, rest: &[&str]) -> Peer {
        let names = [&self.0.segment, &self.0.avail, &self.0.done];
        let mut command = Command::new(format!("/proc/self/fd/{}", compiled().unwrap().as_raw_fd()));
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
