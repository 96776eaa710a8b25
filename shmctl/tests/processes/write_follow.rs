//! `shmctl write --follow`: waits for a daemon and for the role, and goes on when the daemon was stopped and started again.

use nix::sys::signal::Signal;
use std::process::Stdio;

use shm_proto::internal::control::stat::ChannelStat;
use shm_test_support::{Daemon, Place, Proc, Setup, clean, program, wait_until};

fn content(daemon: &Daemon) -> String {
    daemon.cli(&["read", "--from", "oldest", "--until-empty"]).quiet().text()
}

#[test]
fn a_writer_waits_for_a_daemon_and_outlives_its_restart() {
    let place = Place::new();
    let mut command = clean(program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", place.run_dir()).args(["write", "--follow"]).stdin(Stdio::piped());
    let mut write = Proc::spawn(command);
    write.until_err_has("no daemon at");
    write.until_err_has("waiting for it");
    write.feed(b"one\n");
    let mut daemon = Setup::new("").start_in(place);
    daemon.until_stat("one is published", |stat| stat.messages == 1);
    daemon.stop(Signal::SIGTERM);
    write.until_err_has("was taken back");
    write.feed(b"two\nthree\nfo");
    daemon.launch(Setup::new(""));
    daemon.until_stat("two and three are published", |stat| stat.messages == 2);
    write.feed(b"ur\n");
    daemon.until_stat("four is published", |stat| stat.messages == 3);
    assert_eq!(content(&daemon), "two\nthree\nfour\n");
    write.signal(Signal::SIGINT);
    write.wait().ok().fails(0, &["stopped by SIGINT: 4 messages were published (15 bytes)"]);
}

#[test]
fn a_reader_and_a_writer_that_follow_lose_nothing_over_restarts() {
    let mut daemon = Daemon::start("");
    let mut read = daemon.spawn(&["read", "--follow", "--from", "oldest"]);
    daemon.until_readers(1);
    let mut write = daemon.spawn_piped(&["write", "--follow"]);
    let (mut wanted, mut number) = (String::new(), 0);
    for _ in 0..3 {
        for _ in 0..500 {
            let line = format!("line {number}\n");
            write.feed(line.as_bytes());
            wanted += &line;
            number += 1;
        }
        read.until_out_has(&format!("line {}\n", number - 1));
        daemon.stop(Signal::SIGTERM);
        // Some of them come while there is no daemon.
        for _ in 0..10 {
            let line = format!("line {number}\n");
            write.feed(line.as_bytes());
            wanted += &line;
            number += 1;
        }
        daemon.launch(Setup::new(""));
    }
    read.until_out_has(&format!("line {}\n", number - 1));
    write.end_input();
    write.wait().ok();
    assert!(read.out_so_far() == wanted, "{}", read.out_so_far());
}

#[test]
fn a_writer_waits_for_the_role_and_a_signal_ends_the_wait() {
    let daemon = Daemon::start("");
    let mut first = daemon.spawn_piped(&["write"]);
    daemon.until_stat("there is a writer", |stat| stat.writer.is_some());
    let mut second = daemon.spawn_piped(&["write", "--follow"]);
    second.until_err_has("the writer role");
    second.feed(b"mine\n");
    let mut third = daemon.spawn(&["write", "--follow"]);
    third.until_err_has("waiting for it");
    third.signal(Signal::SIGTERM);
    third.wait().ok().fails(0, &["stopped by SIGTERM: 0 messages were published"]);
    first.end_input();
    first.wait().quiet();
    daemon.until_stat("the second has the role", |stat| stat.messages == 1);
    second.end_input();
    second.wait().ok();
    assert_eq!(content(&daemon), "mine\n");
    // Without it, and for a mistake, there is no wait.
    let _holder = daemon.spawn_piped(&["write"]);
    wait_until("the role is taken", || daemon.stat().writer.is_some());
    daemon.cli(&["write"]).fails(75, &["the writer role"]);
    daemon.cli(&["write", "man", "--follow"]).fails(1, &["no channel named man", "did you mean main?"]);
}

/// The messages of a handoff channel that were not handed over go with it when the daemon is stopped.
#[test]
fn what_was_not_handed_over_when_the_daemon_was_stopped_is_written_again() {
    let config = "[[channel]]\nmode = \"handoff\"\nack_timeout = \"60s\"\n";
    let mut daemon = Daemon::start(config);
    let mut write = daemon.spawn_piped(&["write", "--follow"]);
    write.feed(b"one\ntwo\nthree\nfour\n");
    write.end_input();
    let is_on_offer = |stat: &ChannelStat| stat.handoff.as_ref().is_some_and(|handoff| handoff.on_offer.is_some());
    daemon.until_stat("one is on offer", is_on_offer);
    daemon.cli(&["read", "-n", "1"]).prints("one\n");
    daemon.until_stat("two is on offer", |stat| stat.messages == 1 && is_on_offer(stat));
    daemon.stop(Signal::SIGTERM);
    write.until_err_has("waiting for it");
    daemon.launch(Setup::new(config));
    daemon.cli(&["read", "-n", "3", "--timeout", "60s"]).prints("two\nthree\nfour\n");
    write.wait().ok();
    assert_eq!(daemon.stat().messages, 3);
}
