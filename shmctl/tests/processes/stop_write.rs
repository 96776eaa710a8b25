//! `shmctl write` at SIGINT and SIGTERM: 0, and what was published, wherever the signal finds it.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::Command;

use nix::sys::signal::Signal;
use shm_proto::Start;
use shm_proto::internal::os::unread::readable_bytes;

use shm_test_support::{Daemon, Proc, Terminal, wait_until};

const SMALL: &str = "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n";

/// Sends the signal and says what the command says.
#[track_caller]
fn stopped(mut write: Proc, signal: Signal) -> String {
    write.signal(signal);
    write.wait().ok().err
}

#[test]
fn a_signal_ends_a_writer_that_waits_for_input_and_half_a_message_is_not_published() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let daemon = Daemon::start("");
        let mut write = daemon.spawn_piped(&["write"]);
        write.feed(b"one\nthree\nhalf");
        daemon.until_stat("two are published", |stat| stat.messages == 2);
        let said = stopped(write, signal);
        let wanted = format!(
            "shmctl: note: stopped by {signal}: 2 messages were published (8 bytes); an incomplete message (4 bytes) was \
             not published\n"
        );
        assert_eq!(said, wanted);
        daemon.until_stat("the role is free", |stat| stat.writer.is_none());
        assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "2"]).quiet().text(), "one\nthree\n");
    }
}

#[test]
fn a_signal_ends_a_writer_that_waits_for_space() {
    let daemon = Daemon::start(SMALL);
    let reader = daemon.reader(Start::New);
    let mut write = daemon.spawn_piped(&["write"]);
    let mut stdin = write.take_stdin();
    let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let feeding = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, lines.as_bytes()));
    daemon.until_stat("the ring is full", |stat| stat.used > 60 << 10);
    let said = stopped(write, Signal::SIGTERM);
    let stat = daemon.stat();
    assert!(stat.messages > 1000 && stat.messages < 20_000, "{stat:?}");
    let published =
        format!("stopped by SIGTERM: {} messages were published ({:.1}KiB)", stat.messages, stat.bytes as f64 / 1024.0);
    assert!(said.contains(&published) && said.contains(" were read but not published"), "{published}\n{said}");
    assert!(said.contains("the command waited for space in channel main: "), "{said}");
    // What it has left in the pipe goes with it.
    let _ = feeding.join().unwrap();
    drop(reader);
}

#[test]
fn a_signal_ends_a_writer_that_waits_for_readers_and_one_that_waits_for_acknowledgement() {
    let daemon = Daemon::start("[[channel]]\nwait_readers = 1\nack = true\nack_timeout = \"10m\"\n");
    let (theirs, mut ours) = std::io::pipe().unwrap();
    let mut command = daemon.shmctl(&["write"]);
    command.stdin(theirs);
    let write = Proc::spawn(command);
    ours.write_all(b"nobody\n").unwrap();
    wait_until("the line is read", || readable_bytes(ours.as_fd()) == Ok(0));
    let said = stopped(write, Signal::SIGINT);
    let wanted = "stopped by SIGINT: 0 messages were published (0 bytes); 1 message was read but not published; the \
                  command waited for 1 reader of channel main, 0 attached\n";
    assert!(said.ends_with(wanted), "{said}");
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());

    let reader = daemon.reader(Start::New);
    let mut write = daemon.spawn_piped(&["write"]);
    write.feed(b"unread\n");
    daemon.until_stat("it is published", |stat| stat.messages == 1);
    let said = stopped(write, Signal::SIGTERM);
    assert!(
        said.contains("SIGTERM: 1 message was published (6 bytes); 1 of them may not have been acknowledged"),
        "{said}"
    );
    drop(reader);
}

#[test]
fn a_signal_that_ends_the_daemon_as_well_ends_a_writer_with_0() {
    for follow in [&[][..], &["--follow"]] {
        let mut daemon = Daemon::start("");
        let mut write = daemon.spawn_piped(&[&["write"], follow].concat());
        write.feed(b"one\nthree\nhalf");
        daemon.until_stat("two are published", |stat| stat.messages == 2);
        // The writer wakes up when the daemon has taken the role back.
        write.freeze();
        daemon.stop(Signal::SIGTERM);
        write.signal(Signal::SIGTERM);
        write.thaw();
        let said = write.wait().ok().err;
        assert!(
            said.contains("stopped by SIGTERM: 2 messages were published (8 bytes); an incomplete message (4 bytes)"),
            "{said}"
        );
    }
}

#[test]
fn a_signal_while_the_role_is_waited_for_counts_what_is_left() {
    let mut daemon = Daemon::start(SMALL);
    let reader = daemon.reader(Start::New);
    let mut write = daemon.spawn_piped(&["write", "--follow"]);
    let mut stdin = write.take_stdin();
    let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let feeding = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    daemon.until_stat("the ring is full", |stat| stat.used > 60 << 10);
    daemon.stop(Signal::SIGTERM);
    write.until_err_has("waiting for it");
    let said = stopped(write, Signal::SIGINT);
    assert!(said.contains("stopped by SIGINT: ") && said.contains(" were read but not published"), "{said}");
    let part = said.split("an incomplete message (").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned());
    assert!(part.is_none_or(|bytes| bytes.parse::<u64>().unwrap() < 12), "{said}");
    let _ = feeding.join().unwrap();
    drop(reader);
}

#[test]
fn a_signal_ends_a_writer_at_a_terminal() {
    let daemon = Daemon::start("");
    let mut terminal = Terminal::new(24, 80);
    let mut command: Command = daemon.shmctl(&["write"]);
    command.stdin(terminal.stdio());
    let write = Proc::spawn(command);
    terminal.type_in("typed\n");
    daemon.until_stat("a line is published", |stat| stat.messages == 1);
    terminal.type_in("half a li");
    let said = stopped(write, Signal::SIGINT);
    assert!(said.ends_with("stopped by SIGINT: 1 message was published (5 bytes)\n"), "{said}");
}

#[test]
fn a_signal_ends_a_writer_of_a_handoff_channel_with_a_message_on_offer() {
    let daemon = Daemon::start("[[channel]]\nmode = \"handoff\"\n");
    let mut write = daemon.spawn_piped(&["write"]);
    write.feed(b"nobody takes it\n");
    daemon.until_stat("it is on offer", |stat| stat.handoff.as_ref().is_some_and(|it| it.on_offer.is_some()));
    let said = stopped(write, Signal::SIGINT);
    assert!(said.contains("stopped by SIGINT: 1 message was published (15 bytes); 1 of them may not"), "{said}");
}
