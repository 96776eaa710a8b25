use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::super::{Daemon, joined, wait_for};
use super::{next, refused};
use shm_proto::internal::control::stat::{SourceKind, SourceState};

const KEYS: &str = "source = \"fifo:DIR/in\"";

fn write(daemon: &Daemon, bytes: &[u8]) {
    open(daemon).write_all(bytes).unwrap();
}

/// Opens the FIFO for writing when the daemon has it open; an open that waits could wait for ever.
fn open(daemon: &Daemon) -> File {
    let mut opened = None;
    let mut open = || {
        let found = OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(daemon.path("in"));
        match found {
            Ok(file) => opened = Some(file),
            Err(e) => assert_eq!(e.raw_os_error(), Some(Errno::ENXIO as i32), "{e}"),
        }
        opened.is_some()
    };
    wait_for(&mut open, || daemon.log());
    let file = opened.unwrap();
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    file
}

#[test]
fn a_fifo_is_made_read_reopened_after_each_end_and_removed() {
    let mut daemon = Daemon::fed("fifo", KEYS);
    let mode = fs::metadata(daemon.path("in")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut reader = daemon.reader();
    for round in 0..5 {
        daemon.until_state("waiting for a writer");
        // An unfinished line is one at the end, and nothing of it is left for the next opening.
        write(&daemon, format!("a{round}\nb{round}").as_bytes());
        assert_eq!(next(&mut reader), format!("a{round}"));
        assert_eq!(next(&mut reader), format!("b{round}"));
    }
    let input = daemon.until_state("waiting for a writer");
    assert_eq!((input.kind, input.messages, input.bytes, input.errors), (SourceKind::Fifo, 10, 25, 0));
    assert_eq!(input.object.as_deref(), daemon.path("in").to_str());
    let mut open = open(&daemon);
    open.write_all(b"x\n").unwrap();
    daemon.until_state("open");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.path("in").exists());
    daemon.assert_gone();
}

#[test]
fn a_fifo_that_nobody_writes_costs_next_to_nothing() {
    let daemon = Daemon::fed("fifo-idle", KEYS);
    write(&daemon, b"one\n");
    daemon.until_input(|input| input.messages == 1 && input.state == SourceState::AwaitingWriter);
    let pid = daemon.child.as_ref().unwrap().id();
    let switches = || -> u64 {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let source = tasks
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "source-fifo"));
        let status = fs::read_to_string(source.unwrap().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    };
    let (before, begun) = (switches(), Instant::now());
    std::thread::sleep(std::time::Duration::from_millis(2500));
    // A look a second, and a few more of other reasons.
    let (looks, seconds) = (switches() - before, begun.elapsed().as_secs());
    assert!(looks <= 8 + seconds, "{looks} in {seconds} s");
}

#[test]
fn a_record_cut_short_is_counted_and_the_next_opening_is_whole() {
    for (framing, good, short, wanted) in [
        ("length", &b"\x04\0\0\0good"[..], &b"\x09\0\0\0bad"[..], "the input ends after 3 of 9 bytes"),
        ("chunk=4", b"good", b"bad", "the input ends after 3 of 4 bytes"),
    ] {
        let daemon = Daemon::fed("fifo-short", &format!("{KEYS}\nframing = \"{framing}\""));
        let mut reader = daemon.reader();
        write(&daemon, &[good, short].concat());
        let input = daemon.until_input(|input| input.errors == 1);
        assert!(input.last_error.unwrap().contains(wanted));
        daemon.until_state("waiting for a writer");
        write(&daemon, good);
        assert_eq!([next(&mut reader), next(&mut reader)], ["good", "good"]);
        assert!(daemon.log().contains("event=source-error channel=main errors=1"), "{}", daemon.log());
    }
}

#[test]
fn a_line_that_is_too_long_is_passed_over_and_an_impossible_length_costs_the_rest_of_the_opening() {
    let daemon = Daemon::fed("fifo-long", &format!("{KEYS}\nmax_message = 8"));
    let mut reader = daemon.reader();
    write(&daemon, b"one\nfar too long for this\ntwo\n");
    assert_eq!([next(&mut reader), next(&mut reader)], ["one", "two"]);
    assert_eq!(daemon.input().errors, 1);
    drop(daemon);

    let daemon = Daemon::fed("fifo-length", &format!("{KEYS}\nframing = \"length\"\nmax_message = 8"));
    let mut reader = daemon.reader();
    let mut open = open(&daemon);
    open.write_all(b"\xff\xff\xff\x7fwhatever\x01\0\0\0x").unwrap();
    daemon.until_state("skipping the rest");
    open.write_all(b"\x01\0\0\0y").unwrap();
    drop(open);
    daemon.until_state("waiting for a writer");
    write(&daemon, b"\x01\0\0\0z");
    assert_eq!(next(&mut reader), "z");
    assert_eq!(daemon.input().errors, 1);
}

#[test]
fn a_claimed_length_neither_grows_the_ring_nor_wipes_what_it_keeps() {
    let keys = format!("{KEYS}\nframing = \"length\"\ncapacity = \"64KiB\"\non_full = \"overwrite\"");
    let daemon = Daemon::fed("fifo-claim", &keys);
    let mut open = open(&daemon);
    open.write_all(b"\x04\0\0\0kept").unwrap();
    daemon.until_input(|input| input.messages == 1);
    let before = daemon.stat();
    assert!(before.retained > 0);
    // Both would fit into the ring, the second one without growing it.
    for (round, claimed) in [(1, 200u32 << 20), (2, 60 << 10)] {
        open.write_all(&claimed.to_le_bytes()).unwrap();
        open.write_all(b"xx").unwrap();
        daemon.until_input(|input| input.bytes == 8 + 6 * round);
        // The end of the input is dealt with after what was read before it.
        drop(open);
        daemon.until_input(|input| input.errors == round && input.state == SourceState::AwaitingWriter);
        let stat = daemon.stat();
        assert_eq!((stat.capacity, stat.retained), (before.capacity, before.retained), "{}", daemon.log());
        open = self::open(&daemon);
    }
    assert_eq!(next(&mut daemon.reader()), "kept");
    // A message larger than the pipe arrives all the same.
    open.write_all(&(1u32 << 20).to_le_bytes()).unwrap();
    open.write_all(&vec![b'y'; 1 << 20]).unwrap();
    daemon.until_input(|input| input.messages == 2 && input.errors == 2);
}

#[test]
fn writers_that_share_an_opening_are_both_read() {
    let daemon = Daemon::fed("fifo-two", KEYS);
    let mut reader = daemon.reader();
    let [mut a, mut b] = [0; 2].map(|_| open(&daemon));
    a.write_all(b"a\n").unwrap();
    b.write_all(b"b\n").unwrap();
    drop(a);
    b.write_all(b"c\n").unwrap();
    assert_eq!([next(&mut reader), next(&mut reader), next(&mut reader)], ["a", "b", "c"]);
}

#[test]
fn what_is_there_already_is_used_and_stays_and_what_is_no_fifo_is_refused() {
    let mut daemon = Daemon::with_source("fifo-there", KEYS);
    mkfifo(&daemon.path("in"), Mode::from_bits_truncate(0o640)).unwrap();
    daemon.run(&[]);
    daemon.await_ready();
    let mut reader = daemon.reader();
    write(&daemon, b"x\n");
    assert_eq!(next(&mut reader), "x");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(fs::metadata(daemon.path("in")).unwrap().permissions().mode() & 0o777, 0o640);
    drop(daemon);

    let daemon = Daemon::with_source("fifo-file", KEYS);
    fs::write(daemon.path("in"), "mine").unwrap();
    let log = refused(daemon);
    assert!(log.contains("channel main, source fifo: ") && log.contains("a regular file and not a FIFO"), "{log}");
    let log = refused(Daemon::with_source("fifo-nowhere", "source = \"fifo:DIR/no/in\""));
    assert!(log.contains("make the FIFO") && log.contains("No such file"), "{log}");
}

#[test]
fn a_fifo_that_loses_its_name_is_made_again() {
    let mut daemon = Daemon::fed("fifo-lost", KEYS);
    let mut reader = daemon.reader();
    fs::remove_file(daemon.path("in")).unwrap();
    wait_for(|| fs::metadata(daemon.path("in")).is_ok_and(|found| found.file_type().is_fifo()), || daemon.log());
    write(&daemon, b"again\n");
    assert_eq!(next(&mut reader), "again");
    assert!(daemon.log().contains("event=recreate"), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.path("in").exists());
}

#[test]
fn the_permissions_are_those_that_write_asks_for() {
    for (write, mode) in [("[\"@0\"]", 0o620), ("[\"*\"]", 0o622), ("[\"0\"]", 0o600)] {
        if !nix::unistd::geteuid().is_root() && mode == 0o620 {
            continue;
        }
        let daemon = Daemon::fed("fifo-mode", &format!("{KEYS}\nwrite = {write}"));
        assert_eq!(fs::metadata(daemon.path("in")).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn a_channel_is_resized_while_its_source_waits_and_while_its_ring_is_full() {
    let mut daemon = Daemon::fed("fifo-resize", &format!("{KEYS}\ncapacity = \"64KiB\"\nmax = \"4MiB\""));
    assert_eq!(daemon.resize(2 << 20).unwrap().new, 2 << 20);
    assert_eq!(daemon.resize(128 << 10).unwrap().new, 128 << 10);
    wait_for(|| daemon.stat().pending.is_none(), || daemon.log());
    let mut reader = daemon.reader();
    let mut open = open(&daemon);
    let writing = std::thread::spawn(move || {
        let line = [&[b'x'; 999][..], b"\n"].concat();
        // More than the ring can grow to; the daemon may be stopped before it has taken all.
        (0..8000).try_for_each(|_| open.write_all(&line)).is_err()
    });
    wait_for(|| daemon.stat().used > 3 << 20, || daemon.log());
    assert_eq!(daemon.stat().capacity, 4 << 20);
    for _ in 0..100 {
        assert_eq!(next(&mut reader).len(), 999);
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("source-stuck") && !daemon.path("in").exists(), "{}", daemon.log());
    assert!(joined(writing));
}

#[test]
fn a_handoff_channel_is_fed_the_same_way() {
    let keys = format!("{KEYS}\nmode = \"handoff\"\nframing = \"nul\"\nkeep_delimiter = true");
    let daemon = Daemon::fed("fifo-handoff", &keys);
    let names = format!("/{}.main", daemon.prefix);
    let names =
        shm_proto::internal::handoff::Names::new(&names, &format!("{names}.avail"), &format!("{names}.done")).unwrap();
    let mut reader = shm_proto::internal::handoff::Reader::new(names);
    write(&daemon, b"Hello\0World");
    let mut bytes = Vec::new();
    for expected in [&b"Hello\0"[..], b"World\0"] {
        reader.recv(&mut bytes, Some(super::PATIENCE)).unwrap();
        reader.acknowledge();
        assert_eq!(bytes, expected);
    }
    daemon.until_input(|input| input.messages == 2);
}

#[test]
fn a_killed_daemons_fifo_is_taken_over_with_new_permissions_and_removed_in_the_end() {
    let mut daemon = Daemon::fed("fifo-killed", KEYS);
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait();
    assert!(daemon.path("in").exists());
    daemon.config += "write = [\"*\"]\n";
    daemon.run(&[]);
    daemon.await_ready();
    assert_eq!(fs::metadata(daemon.path("in")).unwrap().permissions().mode() & 0o777, 0o622);
    let mut reader = daemon.reader();
    for line in ["one", "two"] {
        write(&daemon, format!("{line}\n").as_bytes());
        assert_eq!(next(&mut reader), line);
        // Opening it anew at each end does not make it a new one.
        daemon.until_state("waiting for a writer");
    }
    assert!(!daemon.log().contains("event=recreate"), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.path("in").exists());
}

#[test]
fn a_link_to_a_fifo_is_followed_and_neither_it_nor_the_fifo_is_changed_or_removed() {
    let mut daemon = Daemon::with_source("fifo-link", &format!("{KEYS}\nwrite = [\"*\"]"));
    let real = daemon.path("real");
    mkfifo(&real, Mode::from_bits_truncate(0o600)).unwrap();
    // The mark of a FIFO that a daemon has left: this one is another channel's, say.
    fs::set_permissions(&real, fs::Permissions::from_mode(0o1640)).unwrap();
    std::os::unix::fs::symlink(&real, daemon.path("in")).unwrap();
    daemon.run(&[]);
    daemon.await_ready();
    let mut reader = daemon.reader();
    write(&daemon, b"x\n");
    assert_eq!(next(&mut reader), "x");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o7777, 0o1640);
    assert!(fs::symlink_metadata(daemon.path("in")).unwrap().is_symlink());
}

#[test]
fn what_a_handoff_has_read_counts_at_once_and_its_rates_are_those_of_what_was_handed_over() {
    let daemon = Daemon::fed("fifo-waits", &format!("{KEYS}\nmode = \"handoff\""));
    write(&daemon, b"one\ntwo\n");
    daemon.until_input(|input| input.bytes == 8 && input.messages == 0);
    // Ticks have passed.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let stat = daemon.stat();
    assert_eq!(stat.messages, 0);
    assert_eq!((stat.messages_per_s, stat.last_minute.messages_per_s), (0.0, 0.0), "{stat:?}");
}
