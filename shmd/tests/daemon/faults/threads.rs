//! The same for the threads beside the main one: sources, and the writer of a handoff channel. `strace` attaches to the thread alone, once
//! the daemon is ready.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc::SIGKILL;
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::handoff::{self, Names};
use shm_proto::{Reader, ReaderError, Request, Start};
use shm_test_support::shared_memory;

use crate::{Daemon, wait_for};

/// Faults of a kind for each thread, without `SHMD_STEPS`.
const SAMPLE: usize = 1;
const FAULTS: [(&str, &str); 6] = [
    ("EIO", "read,recvfrom,recvmsg,statx,newfstatat,fstat,pread64,pwrite64,lseek"),
    ("EINTR", "read,recvfrom,recvmsg,poll,ppoll,futex,accept4,openat,pwrite64"),
    ("EMFILE", "openat,accept4,pipe2,pidfd_open,socketpair,fcntl"),
    ("ENOMEM", "clone,clone3,vfork,accept4,pipe2,poll,ppoll,recvfrom,pidfd_open"),
    ("ENOSPC", "pwrite64,fallocate,ftruncate,openat,mknodat"),
    (
        "KILL",
        "read,recvfrom,poll,ppoll,futex,accept4,openat,pwrite64,write,clone3,vfork,membarrier,fallocate,ftruncate",
    ),
];

/// Who feeds the channel, and the thread that is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    Stdin,
    Fifo,
    Unix,
    Exec,
    Tail,
    Handoff,
}

impl Thread {
    fn config(self, daemon: &Daemon) -> String {
        let path = daemon.dir.join("in");
        let (path, more) = (path.display(), "capacity = \"64KiB\"\nmax = \"1MiB\"");
        let source = match self {
            Thread::Stdin => "stdin".to_owned(),
            Thread::Fifo => format!("fifo:{path}"),
            Thread::Unix => format!("unix:{path}"),
            // It numbers its lines, and is short, so that it is started again and again.
            Thread::Exec => format!("exec:/bin/sh {path} {path}.n"),
            Thread::Tail => format!("tail:{path}"),
            Thread::Handoff => {
                return format!("[[channel]]\nname = \"main\"\nmode = \"handoff\"\nsource = \"fifo:{path}\"\n");
            }
        };
        format!("[[channel]]\nname = \"main\"\n{more}\nsource = \"{source}\"\n")
    }

    /// As the kernel shows it.
    fn name(self) -> String {
        match self {
            Thread::Handoff => "handoff".to_owned(),
            source => format!("source-{source:?}").to_lowercase(),
        }
    }

    fn prepare(self, daemon: &Daemon) {
        let path = daemon.dir.join("in");
        match self {
            Thread::Exec => {
                // It may be killed at any moment, and another one begin.
                let program =
                    "n=$(cat $1 2>/dev/null || echo 0)\necho $((n + 1)) >$1.$$\nmv $1.$$ $1\necho $n\nsleep 0.05\n";
                fs::write(path, program).unwrap();
            }
            Thread::Tail => fs::write(path, "").unwrap(),
            _ => {}
        }
    }

    /// Writes a line, if there is anybody to read it.
    fn feed(self, daemon: &mut Daemon, n: u64) {
        let (path, line) = (daemon.dir.join("in"), format!("{n}\n"));
        let _ = match self {
            Thread::Exec => Ok(()),
            Thread::Stdin => daemon.child.as_mut().unwrap().stdin.as_mut().unwrap().write_all(line.as_bytes()),
            Thread::Unix => UnixStream::connect(path).and_then(|mut stream| stream.write_all(line.as_bytes())),
            Thread::Tail => {
                OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(line.as_bytes()))
            }
            Thread::Fifo | Thread::Handoff => {
                let open = OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
                open.and_then(|mut file| file.write_all(line.as_bytes()))
            }
        };
    }
}

/// Takes what comes, of either kind of channel.
enum Taker {
    Ring(Box<Reader>),
    Handoff(Box<handoff::Reader>),
    /// Its writer could not serve it.
    Evicted,
}

impl Taker {
    /// Nothing of a daemon that is dead by now.
    fn new(thread: Thread, daemon: &mut Daemon) -> Option<Self> {
        if thread == Thread::Handoff {
            let name = format!("/{}.main", daemon.prefix);
            let names = Names::new(&name, &format!("{name}.avail"), &format!("{name}.done")).unwrap();
            return Some(Taker::Handoff(Box::new(handoff::Reader::new(names))));
        }
        match Reader::attach(&daemon.endpoint(), None, Start::Oldest) {
            Ok(reader) => Some(Taker::Ring(Box::new(reader))),
            Err(e) => {
                assert!(!daemon.is_running(), "{e}: {}", daemon.log());
                None
            }
        }
    }

    /// The next line, if one comes within a moment.
    fn take(&mut self) -> Option<u64> {
        let (mut bytes, moment) = (Vec::new(), Some(Duration::from_millis(20)));
        match self {
            Taker::Ring(reader) => match reader.recv_into(&mut bytes, moment) {
                Ok(_) => {}
                Err(ReaderError::Evicted { .. }) => {
                    *self = Taker::Evicted;
                    return None;
                }
                Err(_) => return None,
            },
            Taker::Evicted => return None,
            Taker::Handoff(reader) => {
                reader.recv(&mut bytes, moment).ok()?;
                reader.acknowledge();
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        Some(text.trim().parse().unwrap_or_else(|_| panic!("torn: {text:?}")))
    }
}

impl Daemon {
    fn is_running(&mut self) -> bool {
        // One that was killed answers no more a moment before it has ended.
        std::thread::sleep(Duration::from_millis(1));
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }
}

/// The tracer of one thread, or nothing where that may not be.
fn trace(daemon: &Daemon, thread: Thread, options: &[&str]) -> Option<Child> {
    let pid = daemon.child.as_ref().unwrap().id();
    let tasks = || fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().map(|task| task.unwrap().path());
    let is_it = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread.name());
    let mut found = None;
    wait_for(
        || {
            found = tasks().find(is_it);
            found.is_some()
        },
        || format!("there is no thread {}", thread.name()),
    );
    let task = found.unwrap();
    let tid = task.file_name().unwrap().to_str().unwrap().to_owned();
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", daemon.dir.join("calls").to_str().unwrap(), "-p", &tid]).args(options);
    let mut child = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let is_traced = || {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    let mut gave_up = false;
    wait_for(
        || {
            gave_up = child.try_wait().unwrap().is_some();
            gave_up || is_traced()
        },
        || "strace neither traces nor ends".to_owned(),
    );
    // Or the first call was the one that kills, and both have ended.
    (!gave_up || !task.exists()).then_some(child)
}

/// Feeds and takes until three lines have come, or the source has given up and says why, or the daemon is dead. A resize makes the thread
/// hear the daemon, too.
fn use_it(daemon: &mut Daemon, thread: Thread) {
    let Some(mut taker) = Taker::new(thread, daemon) else { return };
    let (mut fed, mut last, mut came) = (0, None, 0);
    // Each line has a connection of its own, and those have no order.
    let (has_order, mut seen) = (thread != Thread::Unix, BTreeSet::new());
    let mut done = |daemon: &mut Daemon| {
        if !daemon.is_running() {
            return true;
        }
        thread.feed(daemon, fed);
        fed += 1;
        while let Some(n) = taker.take() {
            assert!(!has_order || last.is_none_or(|last| n > last), "{n} came after {last:?}: {}", daemon.log());
            assert!(seen.insert(n), "{n} came twice: {}", daemon.log());
            (last, came) = (Some(n), came + 1);
        }
        if matches!(taker, Taker::Evicted) {
            // The page says it before the log does.
            let is_logged = |daemon: &mut Daemon| daemon.log().contains("event=evict channel=main reader=");
            wait_for(|| is_logged(daemon) || !daemon.is_running(), || "the eviction is in the log".to_owned());
            let Some(next) = Taker::new(thread, daemon) else { return true };
            (taker, last) = (next, None);
            seen.clear();
        }
        if came == 1 {
            let _ = daemon.ask(&Request::Resize { channel: None, bytes: 256 << 10 });
        }
        let gave_up = match daemon.ask(&Request::Stat { channel: None }) {
            Ok(shm_proto::Done::Stat(channels)) => channels[0].input.clone().is_some_and(|input| {
                assert!(
                    input.state != SourceState::Failed || input.last_error.is_some(),
                    "it says why: {}",
                    daemon.log()
                );
                input.state == SourceState::Failed
            }),
            _ => false,
        };
        came >= 3 || gave_up
    };
    wait_for(|| done(daemon), String::new);
}

/// One daemon whose thread is traced. Its exit code and the signal that killed it; nothing where tracing is not permitted.
fn life(daemon: &mut Daemon, thread: Thread, options: &[&str]) -> Option<(Option<i32>, Option<i32>)> {
    use std::os::unix::process::ExitStatusExt;
    let _ = fs::remove_file(daemon.dir.join("log"));
    thread.prepare(daemon);
    daemon.run(&[]);
    daemon.await_ready();
    let mut tracer = trace(daemon, thread, options)?;
    use_it(daemon, thread);
    let mut ended = daemon.child.as_mut().unwrap().try_wait().unwrap();
    if ended.is_none() {
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
    }
    let child = daemon.child.as_mut().unwrap();
    let mut has_ended = || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    };
    wait_for(&mut has_ended, || format!("it does not end: {options:?}"));
    daemon.child = None;
    tracer.wait().unwrap();
    ended.map(|ended| (ended.code(), ended.signal()))
}

fn faults_of(thread: Thread) {
    let mut daemon = Daemon::configured(&format!("faults-{}", thread.name()), "");
    daemon.config = thread.config(&daemon);
    let whole = std::env::var_os("SHMD_STEPS").is_some();
    let calls = daemon.dir.join("calls");
    for (fault, names) in FAULTS {
        let trace = format!("trace={names}");
        let Some(ended) = life(&mut daemon, thread, &["-e", &trace]) else {
            return println!("skipped: strace is not here, or may not trace");
        };
        assert_eq!(ended, (Some(0), None), "{}", daemon.log());
        let count = fs::read_to_string(&calls).unwrap().lines().filter(|line| line.contains('(')).count();
        let every = if whole { 1 } else { count.div_ceil(SAMPLE).max(1) };
        for n in (1 + std::process::id() as usize % every..=count).step_by(every) {
            let tamper = if fault == "KILL" { "signal=KILL".to_owned() } else { format!("error={fault}") };
            let inject = format!("inject={names}:{tamper}:when={n}");
            let (code, signal) = life(&mut daemon, thread, &["-e", &trace, "-e", &inject]).unwrap();
            let trace = fs::read_to_string(&calls).unwrap_or_default();
            let hit = trace.lines().find(|line| line.contains("INJECTED")).unwrap_or("").to_owned();
            let context = format!("{thread:?}, call {n} of {count}, {fault}: {hit}: {}", daemon.log());
            // On a busy machine, a thread that is traced may take longer to end than the daemon waits.
            let left_behind = code == Some(1) && daemon.log().contains("could not be removed");
            let killed = fault == "KILL" && signal == Some(SIGKILL);
            assert!(code == Some(0) || left_behind || killed, "{code:?} {signal:?}: {context}");
            daemon.run(&[]);
            daemon.await_ready();
            assert_eq!(daemon.stop(), Some(0), "{context}: {}", daemon.log());
            let left = shared_memory(&daemon.prefix);
            assert!(left.is_empty(), "{left:?}: {context}: {}", daemon.log());
        }
    }
}

#[test]
fn a_call_of_a_source_that_fails_or_kills_costs_no_more_than_what_it_was_for() {
    for thread in [Thread::Stdin, Thread::Fifo, Thread::Unix, Thread::Exec, Thread::Tail] {
        faults_of(thread);
    }
}

#[test]
fn a_call_of_a_handoff_that_fails_or_kills_costs_no_more_than_what_it_was_for() {
    faults_of(Thread::Handoff);
}

/// What was read before is not read again.
#[test]
fn a_followed_file_that_cannot_be_read_for_once_is_followed_from_where_it_was() {
    let thread = Thread::Tail;
    let mut daemon = Daemon::configured("faults-followed", "");
    daemon.config = thread.config(&daemon);
    for calls in ["pread64", "fstat,statx,newfstatat"] {
        for n in 2..8 {
            let inject = format!("inject={calls}:error=EIO:when={n}");
            let options = ["-e", &format!("trace={calls}"), "-e", &inject];
            let Some(ended) = life(&mut daemon, thread, &options) else {
                return println!("skipped: strace is not here, or may not trace");
            };
            assert_eq!(ended, (Some(0), None), "{}", daemon.log());
        }
    }
}
