//! The control socket under attack: the others are served, and memory, log and descriptors stay within bounds.
//!
//! `SHMD_SIEGE_CONNECTIONS` (10000, say) and `SHMD_SIEGE_SECONDS` make it a campaign, which prints how long requests take alone and
//! under attack. The attackers take most of the processors, too. What that costs is shown by another daemon, which nobody attacks and
//! which is asked the same in turns:
//!
//! ```console
//! $ SHMD_SIEGE_CONNECTIONS=10000 SHMD_SIEGE_SECONDS=60 cargo test --release -p shmd --test daemon siege -- --nocapture
//! ```
//!
//! The attackers are the daemon's own user, whom no limit per user holds up: this is the worst case.

use std::fs::{self, File};
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use shm_proto::{Reader, Request, Start, Writer};

use super::{Daemon, PATIENCE, joined, wait_for};

const ONE: &str = "max_clients = 65536\n[[channel]]\nname = \"main\"\n";
/// Connections that are held at a time, unless `SHMD_SIEGE_CONNECTIONS` says it.
const CONNECTIONS: u64 = 200;
/// Requests whose times are compared.
const REQUESTS: usize = 60;
/// What the daemon may take for each connection: a request of 64 KiB, an answer, and what goes with them; and for all.
const BYTES_EACH: u64 = 192 << 10;
const BYTES_MORE: u64 = 32 << 20;
/// Lines per second in the log about clients that were cut off: ten, and some for others.
const LINES_A_SECOND: usize = 20;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

impl Daemon {
    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.as_ref().unwrap().id().to_string()).join(file)
    }

    fn open_descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How long each of some requests takes, with a connection for each.
    fn request_times(&self) -> Vec<Duration> {
        let once = || {
            let began = Instant::now();
            self.stat();
            began.elapsed()
        };
        let mut times: Vec<_> = (0..REQUESTS).map(|_| once()).collect();
        times.sort();
        times
    }
}

/// Threads that do harm until this is dropped.
struct Attack {
    stop: Arc<AtomicBool>,
    blows: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    fn new() -> Self {
        Self { stop: Arc::default(), blows: Arc::default(), threads: Vec::new() }
    }

    /// Does this again and again.
    fn begin(&mut self, mut blow: impl FnMut() + Send + 'static) {
        let (stop, blows) = (self.stop.clone(), self.blows.clone());
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                blow();
                blows.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    fn blows(&self) -> u64 {
        self.blows.load(Ordering::Relaxed)
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(joined);
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A connection that nothing waits for longer than a moment, if the daemon has a place for it.
fn connect(socket: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(socket).ok()?;
    for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
        set(&stream, Some(Duration::from_millis(200))).unwrap();
    }
    Some(stream)
}

/// Sends something on a connection of its own, and hears what is said to it.
fn shout(socket: &Path, bytes: &[u8]) {
    let Some(mut stream) = connect(socket) else { return };
    // The daemon may have had enough before the end.
    let _ = stream.write_all(bytes);
    let _ = stream.read(&mut [0; 4096]);
}

/// Keeps so many connections open and has said this on each of them; those that are closed make room for others.
fn hold(socket: &Path, held: &mut Vec<UnixStream>, most: usize, said: &[u8]) {
    held.retain(|stream| {
        stream.set_nonblocking(true).unwrap();
        !matches!((&*stream).read(&mut [0; 512]), Ok(0) | Ok(_))
    });
    while held.len() < most {
        let Some(mut stream) = connect(socket) else { break };
        let _ = stream.write_all(said);
        held.push(stream);
    }
    thread::sleep(Duration::from_millis(5));
}

/// A thousand descriptors in four pieces of a line that never ends, and then as many in lines that do.
fn descriptors(socket: &Path, null: &File) {
    for bytes in [&b"{\"v\":1,"[..], b"{\"v\":1,\"op\":\"ping\"}\n"] {
        let Some(stream) = connect(socket) else { return };
        let many = [null.as_raw_fd(); 250];
        for _ in 0..4 {
            let (rights, flags) = (ControlMessage::ScmRights(&many), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
            let _ = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], &[rights], flags, None);
        }
        let _ = (&stream).read(&mut [0; 4096]);
    }
}

/// Begins every kind of attack, with about so many connections at a time.
fn begin(attack: &mut Attack, socket: &Path, connections: u64) {
    let null = File::open("/dev/null").unwrap();
    let (each, at) = (usize::try_from(connections / 3).unwrap(), || socket.to_owned());
    let deep = [b"{\"v\":1,\"op\":".as_slice(), &b"[".repeat(60_000), b"\n"].concat();
    let objects = [b"{\"v\":1,\"op\":\"stat\",\"x\":".as_slice(), &b"{\"a\":".repeat(10_000), b"1\n"].concat();
    let huge = b"a".repeat(200 << 10);
    let mut random: u64 = 1;
    let socket = at();
    attack.begin(move || {
        let mut garbage = [0; 999];
        for byte in &mut garbage {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (random >> 56) as u8;
        }
        shout(&socket, &garbage);
    });
    for bytes in [deep, objects, huge, b"{\"v\":1,\"op\":\"stat\"}\n".repeat(500), b"\n".to_vec()] {
        let socket = at();
        attack.begin(move || shout(&socket, &bytes));
    }
    let socket = at();
    attack.begin(move || descriptors(&socket, &null));
    for said in [&b""[..], b"{\"v\":1,\"op\":\"st"] {
        let (socket, mut held) = (at(), Vec::new());
        attack.begin(move || hold(&socket, &mut held, each, said));
    }
    let (socket, mut held) = (at(), Vec::<UnixStream>::new());
    attack.begin(move || {
        // A byte now and then.
        hold(&socket, &mut held, each, b"{");
        for stream in &held {
            let _ = (&*stream).write(b" ");
        }
        thread::sleep(Duration::from_millis(100));
    });
}

fn at_the_middle(times: &[Duration]) -> Duration {
    times[times.len() / 2]
}

#[test]
fn siege() {
    let connections = setting("SHMD_SIEGE_CONNECTIONS").unwrap_or(CONNECTIONS);
    let seconds = setting("SHMD_SIEGE_SECONDS").unwrap_or(2);
    // This process needs one for each, and the daemon, which has the same limit, too.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = connections + 300;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).unwrap();
        assert!(wanted <= hard, "{connections} connections need {wanted} descriptors, the limit is {hard} (ulimit -n)");
    }
    let mut daemon = Daemon::start("siege", ONE);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let quiet = Daemon::start("siege-quiet", ONE);
    let alone = daemon.request_times();
    let (descriptors, resident, lines) =
        (daemon.open_descriptors(), daemon.resident_bytes(), daemon.log().lines().count());

    let (mut attack, began) = (Attack::new(), Instant::now());
    begin(&mut attack, &daemon.endpoint().socket, connections);
    let (mut attacked, mut beside, mut most_resident, mut bytes) = (Vec::new(), Vec::new(), 0, Vec::new());
    while began.elapsed() < Duration::from_secs(seconds) || attacked.is_empty() || attack.blows() < 200 {
        attacked.extend(daemon.request_times());
        beside.extend(quiet.request_times());
        most_resident = most_resident.max(daemon.resident_bytes());
        // Who is attached does not notice.
        writer.publish_within(b"meanwhile", PATIENCE).unwrap();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, b"meanwhile");
    }
    let (blows, took) = (attack.blows(), began.elapsed());
    attack.end();
    attacked.sort();
    beside.sort();
    println!(
        "siege: {blows} attacks in {took:.1?} with {connections} connections; a request takes {:?} (median; of another \
         daemon at the same time {:?}, alone {:?}), at most {:?}; {} MiB resident at most, {} MiB before",
        at_the_middle(&attacked),
        at_the_middle(&beside),
        at_the_middle(&alone),
        attacked[attacked.len() - 1],
        most_resident >> 20,
        resident >> 20
    );

    let bound = resident + BYTES_EACH * connections + BYTES_MORE;
    assert!(most_resident <= bound, "{most_resident} bytes are resident, {resident} before the attack");
    wait_for(
        || daemon.open_descriptors() <= descriptors,
        || format!("{descriptors} before, now {}", daemon.open_descriptors()),
    );
    let (log, seconds) = (daemon.log(), usize::try_from(began.elapsed().as_secs()).unwrap());
    let written = log.lines().count() - lines;
    assert!(written <= LINES_A_SECOND * (seconds + 2), "{written} lines in {seconds} s: {log}");
    assert!(log.contains("event=dismiss") && log.contains("left_out="), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    daemon.ask(&Request::Ping).unwrap();
    drop((reader, writer));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn more_silent_connections_than_descriptors_are_closed_one_after_the_other_and_others_are_served() {
    let mut daemon = Daemon::configured("siege-few", ONE);
    daemon.run_within(&["sh", "-c", "ulimit -n 64 && exec \"$0\" \"$@\""], &[]);
    daemon.await_ready();
    let descriptors = daemon.open_descriptors();
    let (mut attack, socket, mut held) = (Attack::new(), daemon.endpoint().socket, Vec::new());
    attack.begin(move || hold(&socket, &mut held, 100, b"{\"v\":"));
    wait_for(|| daemon.log().contains("event=accept-paused"), || daemon.log());
    for _ in 0..3 {
        daemon.stat();
    }
    attack.end();
    wait_for(|| daemon.open_descriptors() <= descriptors, || daemon.log());
    daemon.stat();
}
