//! `shmctl read --handoff` and `shmctl write --handoff` against programs in C, and against each other.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use shm_proto::internal::os::unread::readable_bytes;
use shm_test_support::{Handoff, Proc, clean, program, wait_until};

/// For a writer whose reader comes, however slow the machine is: a message that is offered again is read twice.
const PATIENT: [&str; 2] = ["--ack-timeout", "60s"];

/// `shmctl read` or `shmctl write` with the names of the objects.
fn command(objects: &Handoff, command: &str, rest: &[&str]) -> Command {
    let [segment, avail, done] = objects.names();
    let mut shmctl = clean(program("shmctl"));
    shmctl.arg(command).args(["--handoff", "--segment", segment, "--avail", avail, "--done", done]).args(rest);
    shmctl
}

fn shmctl(objects: &Handoff, command: &str, rest: &[&str]) -> Proc {
    let mut shmctl = self::command(objects, command, rest);
    Proc::spawn(shmctl.stdin(Stdio::piped()))
}

fn feed(proc: &mut Proc, bytes: &[u8]) {
    proc.feed(bytes);
    proc.end_input();
}

/// The output of a program that has to end well.
fn good(proc: Proc) -> String {
    proc.wait().ok().text()
}

#[test]
fn a_writer_and_a_reader_need_no_daemon_and_leave_nothing() {
    let objects = Handoff::new();
    let reader = shmctl(&objects, "read", &[]);
    let mut writer = shmctl(&objects, "write", &PATIENT);
    feed(&mut writer, b"one\n\nthree");
    good(writer);
    assert_eq!(good(reader), "one\n\nthree\n", "it ends when the writer has removed the objects");
    assert!(objects.is_clean());
}

#[test]
fn a_program_in_c_gets_strings_and_a_large_message() {
    let objects = Handoff::new();
    if !Handoff::has_peers() {
        return;
    }
    let mut writer = shmctl(&objects, "write", &[&PATIENT[..], &["--framing", "nul", "--keep-delimiter"]].concat());
    objects.await_objects();
    let reader = Proc::spawn(objects.peer_command("read", &["2", "0"]));
    let mut input = b"ab\0".to_vec();
    input.extend([b'x'; 50_000]);
    feed(&mut writer, &input);
    good(writer);
    assert_eq!(good(reader), "open\n3 bad\n50001 bad\n", "whole, though not the pattern that the peer knows");
}

#[test]
fn a_program_in_c_that_is_started_later_is_read() {
    let objects = Handoff::new();
    if !Handoff::has_peers() {
        return;
    }
    let reader = shmctl(&objects, "read", &["-n", "3", "--format", "json"]);
    let writer = Proc::spawn(objects.peer_command("write", &["1", "0", "9000"]));
    assert_eq!(good(writer), "open\nacknowledged\nacknowledged\nacknowledged\n");
    let lines = good(reader);
    assert!(lines.starts_with("{\"seq\":0,\"lost\":0,\"len\":1,") && lines.contains("\"len\":9000"), "{lines}");
}

#[test]
fn a_reader_without_a_writer_times_out_and_a_writer_without_a_reader_ends_at_a_signal_and_cleans_up() {
    let objects = Handoff::new();
    shmctl(&objects, "read", &["--timeout", "50ms"]).wait().fails(75, &[]);
    let mut writer = shmctl(&objects, "write", &[]);
    feed(&mut writer, b"nobody\n");
    objects.await_objects();
    writer.signal(Signal::SIGINT);
    let stopped = writer.wait().ok();
    assert!(stopped.err.contains("stopped by SIGINT: 0 messages were acknowledged (0 bytes)"), "{stopped:?}");
    assert!(objects.is_clean());
}

#[test]
fn a_message_that_nobody_acknowledges_ends_the_writer_or_is_dropped_as_it_is_told() {
    let objects = Handoff::new();
    let mut late = shmctl(&objects, "write", &["--timeout", "50ms"]);
    feed(&mut late, b"nobody\n");
    late.wait().fails(75, &[&format!("an acknowledgement in {}", objects.names()[0]), "50ms"]);
    let mut drops = shmctl(&objects, "write", &["--on-full", "drop", "--ack-timeout", "20ms"]);
    feed(&mut drops, b"one\ntwo\n");
    let drops = drops.wait().ok();
    assert!(drops.err.contains("2 messages were dropped"), "{drops:?}");
    assert!(objects.is_clean());
}

#[test]
fn a_writer_that_gives_up_says_how_many_were_acknowledged() {
    let objects = Handoff::new();
    let mut writer = shmctl(&objects, "write", &["--timeout", "2s"]);
    objects.await_objects();
    let reader = shmctl(&objects, "read", &["-n", "1"]);
    // All that it has to do in time is to wake up.
    objects.await_sleeper();
    feed(&mut writer, b"one\ntwo\n");
    assert_eq!(good(reader), "one\n");
    writer.wait().fails(75, &["1 message was acknowledged before"]);
}

#[test]
fn signals_end_a_reader_and_a_writer_that_have_nothing_to_do() {
    let objects = Handoff::new();
    let mut writer = shmctl(&objects, "write", &PATIENT);
    writer.feed(b"first\n");
    let mut reader = shmctl(&objects, "read", &["-n", "2"]);
    reader.until_out_has("first\n");
    reader.signal(Signal::SIGTERM);
    good(reader);
    writer.signal(Signal::SIGINT);
    let stopped = writer.wait().ok();
    assert!(stopped.err.ends_with("stopped by SIGINT: 1 message was acknowledged (5 bytes)\n"), "{stopped:?}");
    assert!(objects.is_clean());
}

#[test]
fn a_reader_says_that_its_writer_was_killed_and_goes_on_with_the_next_one() {
    let objects = Handoff::new();
    let mut writer = shmctl(&objects, "write", &PATIENT);
    writer.feed(b"first\n");
    let mut reader = shmctl(&objects, "read", &["-n", "2"]);
    // It has looked for the writer before it writes the first message.
    reader.until_out_has("first\n");
    writer.kill();
    let gone = format!("the writer of {} is gone", objects.names()[0]);
    reader.until_err_has(&gone);
    let mut next = shmctl(&objects, "write", &PATIENT);
    feed(&mut next, b"second\n");
    good(next);
    let reader = reader.wait().ok();
    assert_eq!(reader.text(), "first\nsecond\n");
    assert_eq!(reader.err.matches("is gone").count(), 1, "{reader:?}");
}

#[test]
fn a_message_that_a_reader_cannot_write_goes_to_the_next_reader() {
    let full = || Stdio::from(File::create("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    for (output, code) in [(full(), 1), (closed(), 0)] {
        let objects = Handoff::new();
        let mut writer = shmctl(&objects, "write", &["--ack-timeout", "50ms"]);
        writer.feed(b"first\nsecond\n");
        objects.await_offer();
        let mut fails = command(&objects, "read", &[]);
        let fails = Proc::spawn_as_is(fails.stdout(output)).wait();
        assert_eq!(fails.code, Some(code), "{fails:?}");
        assert_eq!(good(shmctl(&objects, "read", &["-n", "1"])), "first\n");
    }
}

#[test]
fn a_message_that_a_signal_keeps_a_reader_from_writing_goes_to_the_next_reader() {
    let objects = Handoff::new();
    // It is not offered again while the first reader is about to end.
    let mut writer = shmctl(&objects, "write", &["--ack-timeout", "3s"]);
    // More than a pipe holds.
    let large = [vec![b'x'; 4 << 20], b"\nsecond\n".to_vec()].concat();
    writer.feed(&large);
    let (ours, theirs) = std::io::pipe().unwrap();
    let mut stops = command(&objects, "read", &[]);
    let mut stops = Proc::spawn_as_is(stops.stdout(theirs));
    wait_until("a part of the message is written", || readable_bytes(ours.as_fd()).is_ok_and(|bytes| bytes > 0));
    stops.signal(Signal::SIGTERM);
    let stops = stops.wait().ok();
    assert!(stops.err.contains("bytes of output were not taken"), "{stops:?}");
    assert_eq!(good(shmctl(&objects, "read", &["-n", "1", "--format", "{len}"])), "4194304\n");
}

#[test]
fn half_of_the_names_and_names_without_a_slash_are_usage_errors() {
    for rest in [
        &["--handoff"][..],
        &["--segment", "/s"],
        &["--handoff", "--segment", "s", "--avail", "/a", "--done", "/b"],
        &["--handoff", "--segment", "/s", "--avail", "/a", "--done", "/b", "--from", "oldest"],
    ] {
        let mut command = clean(program("shmctl"));
        command.arg("read").args(rest);
        Proc::spawn(command).wait().fails(2, &[]);
    }
}
