//! Real streams in, the same bytes out: through the daemon's own standard input and through `shmctl write`.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use nix::sys::signal::Signal;
use shm_proto::Start;

use crate::content::mix;
use shm_test_support::{Daemon, Place, Setup, heavy};

const FILE_BYTES: u64 = 100 << 20;

/// A text of at least [`FILE_BYTES`] with lines from nothing to 100 kB, ending in a newline.
fn make_file(path: &Path) -> u64 {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let block: Vec<u8> = (0..200_000).map(|n| b' ' + (mix(n) % 95) as u8).collect();
    let (mut bytes, mut lines) = (0, 0);
    while bytes < FILE_BYTES {
        let random = mix(lines) as usize;
        let len = match random % 1000 {
            0 => random / 1000 % 100_000,
            1..200 => 0,
            _ => random / 1000 % 200,
        };
        let start = random / 7 % 100_000;
        file.write_all(&block[start..start + len]).and_then(|()| file.write_all(b"\n")).unwrap();
        bytes += len as u64 + 1;
        lines += 1;
    }
    file.flush().unwrap();
    lines
}

#[track_caller]
fn assert_same(wanted: &Path, got: &Path) {
    let length = |path| fs::metadata(path).unwrap().len();
    assert_eq!(length(wanted), length(got), "bytes in {} and {}", wanted.display(), got.display());
    let open = |path| BufReader::new(File::open(path).unwrap());
    let (mut wanted, mut got) = (open(wanted), open(got));
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let n = wanted.read(&mut a).unwrap();
        got.read_exact(&mut b[..n]).unwrap();
        assert!(a[..n] == b[..n], "the bytes differ somewhere from {at} to {}", at + n);
        if n == 0 {
            return;
        }
        at += n;
    }
}

/// The file goes into the daemon's standard input and comes out of two `shmctl read`.
fn through_the_daemon(framing: &str, format: &str) {
    let _turn = heavy();
    let place = Place::new();
    let file = place.path("input");
    let lines = make_file(&file);
    let mut daemon = Setup::new("")
        .args(&["--exit-on-eof", "--wait-readers", "2", "--framing", framing])
        .stdin(File::open(&file).unwrap())
        .start_in(place);
    let outputs = ["one", "two"].map(|name| daemon.place.path(name));
    let readers = outputs.each_ref().map(|output| daemon.spawn_to_file(&["read", "--format", format], output));
    let log = daemon.until_end();
    for (reader, output) in readers.into_iter().zip(&outputs) {
        reader.wait().quiet();
        assert_same(&file, output);
    }
    let messages = if framing == "lines" { lines } else { fs::metadata(&file).unwrap().len().div_ceil(64 << 10) };
    assert!(log.contains(&format!("messages={messages}\n")), "{messages} are not in the log\n{log}");
}

/// The file goes through `shmctl write` and comes out of two `shmctl read`.
fn through_shmctl_write(framing: &str, format: &str) {
    let _turn = heavy();
    let place = Place::new();
    let file = place.path("input");
    make_file(&file);
    let mut daemon = Setup::new("[[channel]]\nwait_readers = 2\n").start_in(place);
    let outputs = ["one", "two"].map(|name| daemon.place.path(name));
    let readers = outputs.each_ref().map(|output| daemon.spawn_to_file(&["read", "--format", format], output));
    let mut write = daemon.shmctl(&["write", "--framing", framing]);
    write.stdin(File::open(&file).unwrap());
    shm_test_support::Run::of(write).quiet();
    // The readers are told, and read what is left before they end.
    daemon.stop(Signal::SIGTERM);
    for (reader, output) in readers.into_iter().zip(&outputs) {
        reader.wait().quiet();
        assert_same(&file, output);
    }
}

#[test]
fn a_large_file_through_the_daemon_comes_out_of_two_readers_unchanged_in_lines() {
    through_the_daemon("lines", "lines");
}

#[test]
fn a_large_file_through_the_daemon_comes_out_of_two_readers_unchanged_in_chunks() {
    through_the_daemon("chunk=64KiB", "raw");
}

#[test]
fn a_large_file_through_shmctl_write_comes_out_of_two_readers_unchanged_in_lines() {
    through_shmctl_write("lines", "lines");
}

#[test]
fn a_large_file_through_shmctl_write_comes_out_of_two_readers_unchanged_in_chunks() {
    through_shmctl_write("chunk=64KiB", "raw");
}

#[test]
fn exit_on_eof_waits_for_a_reader_that_is_behind() {
    let place = Place::new();
    let file = place.path("input");
    let text: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    fs::write(&file, &text).unwrap();
    let mut daemon = Setup::new("")
        .args(&["--exit-on-eof", "--wait-readers=1", "--capacity=1MiB"])
        .stdin(File::open(&file).unwrap())
        .start_in(place);
    let mut reader = daemon.reader(Start::Oldest);
    daemon.until_stat("the source has ended", |stat| stat.messages == 1000 && stat.writer.is_none());
    // Nothing is concluded from this time; a daemon that does not wait would be gone after it.
    daemon.let_pass(std::time::Duration::from_millis(300));
    let mut received = String::new();
    let mut line = Vec::new();
    for _ in 0..1000 {
        reader.recv_into(&mut line, Some(shm_test_support::PATIENCE)).unwrap();
        received.push_str(std::str::from_utf8(&line).unwrap());
        received.push('\n');
    }
    assert_eq!(received, text);
    assert!(matches!(reader.recv(Some(shm_test_support::PATIENCE)), Err(shm_proto::ReaderError::Closed { .. })));
    drop(reader);
    daemon.until_end();
}

#[test]
fn without_exit_on_eof_the_daemon_goes_on_and_programs_may_write() {
    let place = Place::new();
    let file = place.path("input");
    fs::write(&file, "from the source\n").unwrap();
    let daemon = Setup::new("").stdin(File::open(&file).unwrap()).start_in(place);
    daemon.until_stat("the source has ended", |stat| stat.messages == 1 && stat.writer.is_none());
    daemon.write_lines("from a program\n");
    let run = daemon.cli(&["read", "--from", "oldest", "-n", "2"]).quiet();
    assert_eq!(run.text(), "from the source\nfrom a program\n");
}

#[test]
fn a_message_larger_than_the_capacity_makes_the_channel_grow() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"8MiB\"\n");
    assert_eq!(daemon.stat().capacity, 64 << 10);
    let message: Vec<u8> = (0..3 << 17).flat_map(|n| mix(n).to_le_bytes()).collect();
    daemon.cli_with_input(&["write", "--framing", "chunk=3MiB"], &message).quiet();
    let stat = daemon.stat();
    assert!(stat.capacity >= 3 << 20 && stat.resizes >= 1, "{stat:?}");
    assert_eq!((stat.messages, stat.bytes), (1, 3 << 20));
    let run = daemon.cli(&["read", "--from", "oldest", "-n", "1", "--format", "raw"]).quiet();
    assert!(run.out == message, "{} bytes came", run.out.len());
}
