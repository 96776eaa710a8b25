//! The proof that `shm-proto/PROTOCOL.md` is enough: a reader and a writer in plain Python, written from it alone, take part in
//! streams with the daemon and `shmctl`.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use shm_proto::Start;
use shm_proto::internal::control::stat::ReaderState;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_test_support::{Daemon, PATIENCE, Proc, clean, wait_until};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shm-proto/tests/python/client.py");

/// Whether these tests are skipped here, with a note: there is no Python, or Python would need atomic instructions.
fn skip() -> bool {
    let mut python = clean("python3");
    python.args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]).stderr(Stdio::null());
    let missing = !python.status().is_ok_and(|status| status.success());
    if missing || cfg!(not(target_arch = "x86_64")) {
        shm_test_support::skip("a client in Python", "this needs python3 (3.10 or newer) on x86-64");
        return true;
    }
    false
}

/// The client, without any package that somebody has installed.
fn client(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = clean("python3");
    command.args(["-I", "-S", "-B", CLIENT, args[0]]).arg(&daemon.endpoint().socket).arg("main").args(&args[1..]);
    command
}

fn read(daemon: &Daemon, args: &[&str]) -> Proc {
    Proc::spawn(client(daemon, &[&["read"], args].concat()))
}

fn write(daemon: &Daemon) -> Proc {
    let mut command = client(daemon, &["write"]);
    command.stdin(Stdio::piped());
    Proc::spawn(command)
}

/// A small channel with these keys.
fn small(keys: &str) -> Daemon {
    Daemon::start(&format!(
        "[[channel]]\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"4MiB\"\nevict_after = \"0\"\nshrink_after = \"0\"\n\
         {keys}\n"
    ))
}

/// Lines of different lengths, up to a few hundred bytes.
fn lines(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("line {n} {}\n", "x".repeat(n * 7 % 300))).collect()
}

/// Waits until this number of readers has read everything and sleeps.
fn until_asleep(daemon: &Daemon, readers: usize, messages: usize) {
    daemon.until_stat("the readers sleep", |stat| {
        let asleep =
            stat.readers.iter().filter(|reader| reader.state == ReaderState::Sleeping && reader.lag_messages == 0);
        stat.messages == messages as u64 && asleep.count() == readers
    });
}

/// A stream in bursts through `writer`, to `readers` that are all awake, asleep, behind a full ring, a grown one and a shrunk one.
fn stream(daemon: &Daemon, mut writer: Proc, mut readers: Vec<Proc>) {
    let count = readers.len();
    daemon.until_readers(count);
    // One after the other: each wakes the readers up.
    for n in 0..20 {
        writer.feed(lines(n, n + 1).as_bytes());
        until_asleep(daemon, count, n + 1);
    }
    writer.feed(lines(20, 2000).as_bytes());
    daemon.resize(1 << 20).unwrap();
    writer.feed(lines(2000, 4000).as_bytes());
    daemon.resize(64 << 10).unwrap();
    writer.feed(lines(4000, 6000).as_bytes());
    until_asleep(daemon, count, 6000);
    // The writer may have asked for growth again, and a growth under way goes on.
    wait_until("the shrink is in effect", || {
        daemon.resize(64 << 10).unwrap();
        let stat = daemon.stat();
        stat.pending.is_none() && stat.capacity == 64 << 10
    });
    // More than fits, for a reader that stands still: the writer asks for growth.
    readers[0].freeze();
    writer.feed(lines(6000, 8000).as_bytes());
    daemon.until_stat("the ring has grown", |stat| stat.messages == 8000);
    assert!(daemon.stat().capacity > 256 << 10, "{:?}", daemon.stat());
    wait_until("a shrink waits for the reader", || {
        daemon.resize(64 << 10).unwrap();
        daemon.stat().pending == Some(64 << 10)
    });
    readers[0].thaw();
    until_asleep(daemon, count, 8000);
    daemon.until_stat("the shrink is in effect", |stat| stat.pending.is_none() && stat.capacity == 64 << 10);
    writer.feed(lines(8000, 9000).as_bytes());
    writer.end_input();
    writer.wait().ok();
    for reader in readers {
        let run = reader.wait().ok();
        assert!(run.text() == lines(0, 9000), "other lines than were published; {}", run.err);
        assert!(run.err.is_empty() || run.err == "9000 received, 0 lost\n", "{}", run.err);
    }
    let stat = daemon.stat();
    assert_eq!((stat.dropped, stat.overwritten, stat.evicted), (0, 0, 0));
}

#[test]
fn a_reader_in_python_takes_part_in_a_lossless_stream() {
    if skip() {
        return;
    }
    let daemon = small("");
    let readers = vec![read(&daemon, &["new", "9000"]), read(&daemon, &["new", "9000", "bell"])];
    stream(&daemon, daemon.spawn_piped(&["write"]), readers);
}

#[test]
fn a_writer_in_python_takes_part_in_a_lossless_stream() {
    if skip() {
        return;
    }
    let daemon = small("");
    let readers = vec![daemon.spawn(&["read", "-n", "9000"]), daemon.spawn(&["read", "-n", "9000"])];
    stream(&daemon, write(&daemon), readers);
}

#[test]
fn both_take_part_with_payloads_at_multiples_of_64() {
    if skip() {
        return;
    }
    let daemon = small("align = 64");
    let readers = vec![read(&daemon, &["oldest", "9000"]), daemon.spawn(&["read", "--from", "oldest", "-n", "9000"])];
    stream(&daemon, write(&daemon), readers);
}

#[test]
fn both_take_part_in_a_channel_with_publish_times() {
    if skip() {
        return;
    }
    for align in [16, 64] {
        let daemon = small(&format!("timestamps = true\nalign = {align}"));
        let readers =
            vec![read(&daemon, &["oldest", "9000"]), daemon.spawn(&["read", "--from", "oldest", "-n", "9000"])];
        stream(&daemon, write(&daemon), readers);
    }
}

#[test]
fn the_client_in_python_reads_and_writes_the_times_that_others_see() {
    if skip() {
        return;
    }
    for is_python in [true, false] {
        let daemon = small("timestamps = true");
        let mut rust = daemon.reader(Start::New);
        // One that begins with new messages may be stopped while it looks for its place, and then passes these.
        let mut python = read(&daemon, &["oldest", "50", "times"]);
        daemon.until_readers(2);
        python.freeze();
        let mut writer = if is_python { write(&daemon) } else { daemon.spawn_piped(&["write"]) };
        let begun = monotonic_ns();
        writer.feed(lines(0, 50).as_bytes());
        writer.end_input();
        writer.wait().ok();
        let ended = monotonic_ns();
        let mut expected = String::new();
        for (n, line) in lines(0, 50).lines().enumerate() {
            let message = rust.recv(Some(PATIENCE)).unwrap();
            let time = message.published_ns().unwrap();
            assert!((begun..=ended).contains(&time), "message {n} is from {time}, outside of {begun} to {ended}");
            expected += &format!("{time} {line}\n");
            message.finish().unwrap();
        }
        // This gives back what was read.
        assert!(rust.try_recv().unwrap().is_none());
        // What the client shows of its place is enough to look the time up.
        let unread = daemon.until_stat("the time of the oldest unread message is known", |stat| {
            stat.readers.iter().any(|reader| reader.oldest_unread_ns.is_some())
        });
        assert_eq!(unread.readers.iter().filter(|reader| reader.oldest_unread_ns.is_some()).count(), 1, "{unread:?}");
        python.thaw();
        assert_eq!(python.wait().ok().text(), expected);
        daemon.until_stat("the client is gone", |stat| stat.readers.len() == 1);
    }
}

#[test]
fn a_reader_in_python_notices_what_was_overwritten() {
    if skip() {
        return;
    }
    let mut daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"overwrite\"\n");
    let reader = read(&daemon, &["new", "1000000"]);
    daemon.until_readers(1);
    let sent = lines(0, 30_000);
    daemon.write_lines(&sent);
    daemon.until_stat("the reader has read everything", |stat| stat.readers[0].lag_messages == 0);
    daemon.stop(Signal::SIGTERM);
    let run = reader.wait().ok();
    let mut published = sent.lines();
    let received = run.text();
    assert!(
        received.lines().all(|line| published.any(|other| other == line)),
        "a line that was not published, or twice"
    );
    let numbers: Vec<usize> = run.err.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert_eq!((numbers[0], numbers[0] + numbers[1]), (received.lines().count(), 30_000), "{}", run.err);
    assert!(numbers[1] > 0, "nothing was overwritten");
}

#[test]
fn the_client_in_python_is_small() {
    let text = std::fs::read_to_string(Path::new(CLIENT)).unwrap();
    assert!(text.lines().count() <= 300, "{} lines", text.lines().count());
    assert!(text.lines().all(|line| line.len() <= 124));
}
