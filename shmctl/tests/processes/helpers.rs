//! Roles that this test program plays when a test starts it once more as a process of its own.
//!
//! What a role has to tell goes to standard error, a line each; standard output has the test runner's own words.

mod crowd;
mod intruder;
pub(crate) mod storm;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, exit};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::geteuid;
use shm_proto::{Endpoint, Reader, ReaderError, Start, Writer};

use crate::content::Content;
use shm_test_support::{Daemon, Proc, Run, User, clean, skip};

const ROLE: &str = "SHM_TEST_ROLE";
const SEPARATOR: char = '\u{1f}';

/// A process of this test program in a role, talking to `daemon`.
pub(crate) fn start(daemon: &Daemon, role: &str, args: &[&str]) -> Proc {
    Proc::spawn(prepare(clean(std::env::current_exe().unwrap()), daemon, role, args))
}

/// The same, run by somebody else.
pub(crate) fn start_as(user: User, daemon: &Daemon, role: &str, args: &[&str]) -> Proc {
    Proc::spawn(prepare(user.command(&daemon.place.dir, &std::env::current_exe().unwrap()), daemon, role, args))
}

fn prepare(mut command: Command, daemon: &Daemon, role: &str, args: &[&str]) -> Command {
    let role: Vec<_> = [role].into_iter().chain(args.iter().copied()).collect();
    command.env(ROLE, role.join(&SEPARATOR.to_string())).env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
    command.env(intruder::DAEMON, daemon.pid().to_string());
    command.args(["--exact", "helper_process", "--nocapture", "--test-threads=1"]);
    command
}

/// A shell with this script in new namespaces, in which it may do what root may. The script has the command's further arguments.
pub(crate) fn unshare(namespaces: &[&str], script: &str) -> Command {
    let mut command = clean("unshare");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(namespaces).args(["sh", "-ec", script, "sh"]);
    command
}

/// This program with a `/dev/shm` of its own, which is empty. If that is not possible here, a note says so.
pub(crate) fn with_own_shared_memory(test: &str, program: &Path) -> Option<Command> {
    let own = |program: &Path| {
        let mut command = unshare(&["--mount"], "mount -t tmpfs none /dev/shm; exec \"$@\"");
        command.arg(program);
        command
    };
    let tried = Run::of(own(Path::new("true")));
    if tried.code == Some(0) {
        return Some(own(program));
    }
    skip(test, &format!("this user may not mount in a namespace here: {}", tried.err.trim()));
    None
}

/// Plays the role that the environment names, if it names one, and ends the process.
pub(crate) fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let parts: Vec<_> = role.split(SEPARATOR).collect();
    let endpoint = Endpoint::find(None);
    match parts[..] {
        ["verify", large_one_in, count] => verify(&endpoint, large_one_in.parse().unwrap(), count.parse().unwrap()),
        ["count", pause_every] => count(&endpoint, pause_every.parse().unwrap()),
        ["note", file] => note(&endpoint, file),
        ["arm", times] => arm(&endpoint, times.parse().unwrap()),
        ["hold", how] => hold(&endpoint, how),
        ["storm-write", socket, stop, tally] => storm::write(&endpoint, socket, stop, tally),
        ["storm-read-on", way] => storm::read_on(&endpoint, way),
        ["storm-read", way, started] => storm::read(&endpoint, way, started),
        ["scribble", path, seed] => storm::scribble(&endpoint, path, seed.parse().unwrap()),
        ["endure", way, started] => storm::endure(&endpoint, way, started),
        ["narrow", spare] => narrow(&endpoint, spare.parse().unwrap()),
        ["intrude", object] => intruder::intrude(&endpoint, object),
        ["crowd", how, most] => crowd::crowd(&endpoint, how, most.parse().unwrap()),
        ["cling"] => crowd::cling(&endpoint),
        ["return", instance] => crowd::claim_to_return(&endpoint, instance.parse().unwrap()),
        ["ask-twice", line] => crowd::ask_twice(&endpoint, line),
        ["ask", line, times] => crowd::ask(&endpoint, line, times.parse().unwrap()),
        ["hog", connections] => hog(&endpoint, connections.parse().unwrap()),
        _ => panic!("no such role: {parts:?}"),
    }
    exit(0);
}

/// Receives so many messages and compares each, byte for byte, with what its number says.
fn verify(endpoint: &Endpoint, large_one_in: u64, count: u64) {
    let content = Content::new(large_one_in);
    let mut reader = Reader::attach(endpoint, None, Start::Oldest).unwrap();
    let (mut bytes, mut scratch) = (0, Vec::new());
    for n in 0..count {
        let message = reader.recv(None).unwrap_or_else(|e| panic!("message {n}: {e}"));
        assert_eq!((message.seq(), message.lost_before()), (n, 0));
        message.copy_to_vec(&mut scratch);
        message.finish().unwrap_or_else(|e| panic!("message {n}: {e}"));
        let wanted = content.message(n);
        assert!(scratch == wanted, "message {n}: {} bytes, not the {} that were sent", scratch.len(), wanted.len());
        bytes += scratch.len() as u64;
    }
    assert_eq!((reader.received(), reader.lost()), (count, 0));
    eprintln!("verified {count} messages, {bytes} bytes");
}

/// Receives numbered messages up to one that says `end`, with a pause after every so many, and says how many came and how
/// many were lost.
fn count(endpoint: &Endpoint, pause_every: u64) {
    let mut reader = Reader::attach(endpoint, None, Start::Oldest).unwrap();
    let (mut received, mut lost, mut last, mut text) = (0u64, 0, None, Vec::new());
    loop {
        let got = reader.recv_into(&mut text, None).unwrap();
        received += 1;
        lost += got.lost_before;
        assert_eq!(received + lost, got.seq + 1, "every number is accounted for");
        if text == b"end" {
            break;
        }
        let number: u64 = std::str::from_utf8(&text).unwrap().trim_end_matches('.').parse().unwrap();
        assert!(last.is_none_or(|last| number > last), "{number} came after {last:?}");
        last = Some(number);
        if pause_every > 0 && received.is_multiple_of(pause_every) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!((reader.received(), reader.lost()), (received, lost));
    eprintln!("received {received} lost {lost}");
}

/// Appends a line to a file for every message, before the message is given back.
fn note(endpoint: &Endpoint, file: &str) {
    let mut file = File::options().append(true).create(true).open(file).unwrap();
    let mut reader = Reader::attach(endpoint, None, Start::Oldest).unwrap();
    let mut line = Vec::new();
    loop {
        match reader.recv(None) {
            Ok(message) => {
                message.copy_to_vec(&mut line);
                line.push(b'\n');
                file.write_all(&line).unwrap();
            }
            Err(ReaderError::Closed { .. }) => return,
            Err(e) => panic!("{e}"),
        }
    }
}

/// Prepares so often for sleeping in a poll loop and says how long the shortest time took.
fn arm(endpoint: &Endpoint, times: u32) {
    let mut reader = Reader::attach(endpoint, None, Start::New).unwrap();
    let once = |_| {
        let began = Instant::now();
        assert!(reader.arm().unwrap(), "nothing has been published");
        began.elapsed()
    };
    let shortest = (0..times).map(once).min().unwrap();
    eprintln!("shortest {} ns", shortest.as_nanos());
}

/// Borrows the writer role, publishes one message, and stays; `half` leaves a message half-written meanwhile.
fn hold(endpoint: &Endpoint, how: &str) {
    let mut writer = Writer::attach(endpoint, None).unwrap();
    writer.publish(b"from the holder").unwrap();
    let mut slot = writer.reserve(1000).unwrap().unwrap();
    if how == "half" {
        slot[..500].fill(b'x');
    }
    eprintln!("holding");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Borrows the writer role with room for so many more descriptors, and publishes numbers.
fn narrow(endpoint: &Endpoint, spare: u64) -> ! {
    let mut writer = Writer::attach(endpoint, None).unwrap();
    let next = File::open("/dev/null").unwrap();
    let limit = u64::from(next.as_raw_fd().unsigned_abs()) + spare;
    drop(next);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
    eprintln!("limit {limit}.");
    for n in 0u64.. {
        writer.publish(&n.to_le_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    unreachable!("nobody counts so far");
}

/// Opens so many connections to the control socket, says so, and stays.
fn hog(endpoint: &Endpoint, connections: usize) {
    let open = || std::os::unix::net::UnixStream::connect(&endpoint.socket).unwrap();
    let mut held: Vec<_> = (0..connections).map(|_| open()).collect();
    eprintln!("holding {}", held.len());
    // Each is dropped by the daemon after a second of silence; another takes its place.
    for place in (0..connections).cycle() {
        std::thread::sleep(Duration::from_millis(1));
        held[place] = open();
    }
}
