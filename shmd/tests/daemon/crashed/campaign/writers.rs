//! Everybody who can write a channel, as fast as possible until the end.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use shm_proto::Writer;
use shm_proto::internal::control::stat::SourceState;

use super::{MESSAGE, text};
use crate::{Daemon, joined, wait_for};

/// What a daemon reads ahead, what a pipe holds, and what a socket holds.
const READ: u64 = 256 << 10;
const PIPE: u64 = 256 << 10;
const SOCKET: u64 = 256 << 10;
/// The numbers of its run of which a program tells.
const TOLD: u64 = 300;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A program that has borrowed the role.
    Lent,
    /// A pipe for each daemon.
    Stdin,
    /// One program that has the FIFO open all the time.
    Fifo,
    /// A program that connects again.
    Unix,
    Packets,
    /// A program for each daemon.
    Exec,
    Tail,
}

/// Writing that goes on.
pub(super) struct Writing {
    by: By,
    dir: PathBuf,
    /// How many messages it has written in each run.
    thread: JoinHandle<Vec<u64>>,
    stdin: Arc<Mutex<Option<ChildStdin>>>,
}

impl By {
    /// The channel's keys.
    pub(super) fn source(self, dir: &Path) -> String {
        let dir = dir.display();
        match self {
            By::Lent => String::new(),
            By::Stdin => "source = \"stdin\"\n".to_owned(),
            By::Fifo => format!("source = \"fifo:{dir}/in\"\n"),
            By::Unix => format!("source = \"unix:{dir}/in\"\n"),
            By::Packets => format!("source = \"unix-seqpacket:{dir}/in\"\n"),
            By::Exec => {
                fs::write(format!("{dir}/program"), PROGRAM.replace("TOLD", &TOLD.to_string())).unwrap();
                format!("source = \"exec:/bin/sh {dir}/program {dir}\"\n")
            }
            By::Tail => {
                File::create(format!("{dir}/in")).unwrap();
                format!("source = \"tail:{dir}/in\"\n")
            }
        }
    }

    /// Bytes that may be lost with each daemon.
    pub(super) fn most_unpublished(self) -> u64 {
        match self {
            By::Lent | By::Tail => 0,
            // What is in the FIFO is still there. The message in which the next daemon begins to read is passed over.
            By::Fifo => READ + 2 * MESSAGE,
            By::Stdin => READ + PIPE + MESSAGE,
            By::Exec => READ + PIPE + MESSAGE + TOLD * MESSAGE,
            By::Unix => READ + SOCKET + MESSAGE,
            By::Packets => SOCKET + MESSAGE,
        }
    }

    pub(super) fn begin(self, daemon: &mut Daemon, over: &Arc<AtomicBool>) -> Writing {
        let dir = daemon.dir.to_path_buf();
        let path = dir.join("in");
        let stdin = Arc::new(Mutex::new(None));
        let over = Arc::clone(over);
        let thread = match self {
            By::Lent => {
                let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
                thread::spawn(move || {
                    let mut n = 0;
                    while !over.load(Ordering::Relaxed) {
                        writer.publish(text(0, n).as_bytes()).unwrap();
                        n += 1;
                    }
                    assert_eq!(writer.messages() + writer.dropped(), n);
                    vec![n]
                })
            }
            By::Stdin => {
                let next = Arc::clone(&stdin);
                write_until(over, true, move || next.lock().unwrap().take())
            }
            By::Fifo => {
                let mut file = Some(OpenOptions::new().write(true).open(path).unwrap());
                write_until(over, true, move || file.take().map(Patient))
            }
            By::Unix => write_until(over, true, move || UnixStream::connect(&path).ok()),
            By::Packets => write_until(over, false, move || {
                let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
                connect(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).ok().map(|()| Whole(fd))
            }),
            By::Tail => write_until(over, true, move || OpenOptions::new().append(true).open(&path).ok()),
            By::Exec => thread::spawn(Vec::new),
        };
        let writing = Writing { by: self, dir, thread, stdin };
        writing.daemon_is_back(daemon);
        writing
    }
}

impl Writing {
    pub(super) fn daemon_is_back(&self, daemon: &mut Daemon) {
        *self.stdin.lock().unwrap() = daemon.child.as_mut().unwrap().stdin.take();
    }

    /// Waits until everything is written and the daemon has dealt with it. Returns how many messages each run has written.
    pub(super) fn end(self, daemon: &Daemon) -> BTreeMap<u64, u64> {
        fs::write(self.dir.join("over"), "").unwrap();
        let written = joined(self.thread);
        drop(self.stdin.lock().unwrap().take());
        let state = || daemon.stat().input.unwrap().state;
        let dealt_with = || match self.by {
            By::Lent => daemon.stat().writer.is_none(),
            By::Stdin => state() == SourceState::Ended,
            By::Fifo => state() == SourceState::AwaitingWriter,
            By::Unix | By::Packets => matches!(state(), SourceState::Listening { clients: 0, .. }),
            By::Exec => matches!(state(), SourceState::Restarting { .. }),
            By::Tail => daemon.stat().messages + daemon.stat().dropped >= written[0],
        };
        wait_for(dealt_with, || daemon.log());
        if self.by == By::Exec { told(&self.dir) } else { (0..).zip(written).collect() }
    }
}

/// The most that each run of the program may have written.
fn told(dir: &Path) -> BTreeMap<u64, u64> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let run = |path: &Path| path.file_name()?.to_str()?.strip_prefix("told.")?.parse().ok();
    let told = |path: &Path| fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap();
    files.filter_map(|path| Some((run(&path)?, told(&path) + TOLD))).collect()
}

/// Writes numbered lines until the end. When writing fails, another run begins, on what `open` gives next.
fn write_until<W: Write>(
    over: Arc<AtomicBool>,
    in_pieces: bool,
    mut open: impl FnMut() -> Option<W> + Send + 'static,
) -> JoinHandle<Vec<u64>> {
    thread::spawn(move || {
        let mut runs = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let Some(mut out) = open() else {
                sleep(Duration::from_millis(1));
                continue;
            };
            let (run, mut n) = (runs.len() as u64, 0);
            while !over.load(Ordering::Relaxed) {
                let line = text(run, n) + "\n";
                // Half a line is in the daemon when it dies now and then.
                let half = if in_pieces && n % 5 == 0 { line.len() / 2 } else { 0 };
                let (begin, rest) = line.as_bytes().split_at(half);
                if out.write_all(begin).and_then(|()| out.write_all(rest)).is_err() {
                    break;
                }
                n += 1;
            }
            runs.push(n);
        }
        runs
    })
}

/// Numbers its run, and tells how far the run has come, a little late. The program of a dead daemon may still run beside the next
/// one: the directory is what only one of them can make, and each writes only into its own.
const PROGRAM: &str = r#"
cd "$1" || exit
run=0
until mkdir run.$run 2>/dev/null; do run=$((run + 1)); done
n=0
until [ $((n % TOLD)) = 0 ] && { echo $n >run.$run/told; mv run.$run/told told.$run; [ -e over ]; }; do
    printf '%s %s %0*d\n' $run $n $((n % 300 + 1)) 0
    n=$((n + 1))
done
"#;

/// A FIFO whose writer waits for the next reader.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => sleep(Duration::from_millis(1)),
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket of packets.
struct Whole(OwnedFd);

impl Write for Whole {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The end of the line is the packet's.
        let sent = nix::unistd::write(&self.0, bytes.strip_suffix(b"\n").unwrap_or(bytes))?;
        Ok(sent + usize::from(bytes.ends_with(b"\n")))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
