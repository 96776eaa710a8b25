//! Start, end, and what is left of either.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::internal::ring::{Reader, Writer};
use shm_proto::{ReaderError, WriterError};
use shm_proto::{Request, Start};

use super::{Daemon, PATIENCE, wait_for};

const PLAIN: &str = "[[channel]]\nname = \"main\"\nsource = \"none\"\n";

#[test]
fn a_clean_stop_tells_the_readers_and_leaves_nothing() {
    let mut daemon = Daemon::start("stop", PLAIN);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(b"last words").unwrap();
    daemon.signal(Signal::SIGTERM);
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert_eq!(bytes, b"last words");
    assert!(matches!(reader.recv_into(&mut bytes, Some(PATIENCE)), Err(ReaderError::Closed { .. })));
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.log());
    assert!(matches!(writer.publish(b"too late"), Err(WriterError::Revoked { .. })));
    daemon.assert_gone();
    let log = daemon.log();
    for event in ["event=create", "event=attach", "event=lend", "event=stop", "event=unlink"] {
        assert!(log.contains(event), "{event} is not in {log}");
    }
}

#[test]
fn a_start_that_fails_halfway_leaves_nothing_but_what_it_met() {
    let config = "[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\n";
    let mut daemon = Daemon::configured("halfway", config);
    fs::write(daemon.object("b"), "somebody's").unwrap();
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1));
    assert!(daemon.log().contains("not shmd's has this name"), "{}", daemon.log());
    assert!(!daemon.object("a").exists() && !daemon.run_dir().exists());
    assert_eq!(fs::read(daemon.object("b")).unwrap(), b"somebody's");
}

#[test]
fn what_a_killed_daemon_left_is_taken_over_and_the_log_says_so() {
    let mut daemon = Daemon::start("stale", PLAIN);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(daemon.object("main").exists());
    daemon.run(&[]);
    daemon.await_ready();
    assert!(daemon.log().contains("event=adopt channel=main segment="), "{}", daemon.log());
    assert!(daemon.log().contains("event=replace socket="), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0));
    // The directory was the killed daemon's, so it stays; only what is in it goes.
    assert_eq!(fs::read_dir(daemon.run_dir()).unwrap().count(), 0);
    assert!(!daemon.object("main").exists());
}

#[test]
fn the_objects_of_a_living_daemon_are_refused_with_its_pid() {
    let first = Daemon::start("living", PLAIN);
    let mut second = Daemon::configured("living-too", PLAIN);
    second.prefix.clone_from(&first.prefix);
    second.run(&[]);
    assert_eq!(second.wait(), Some(1));
    let pid = first.child.as_ref().unwrap().id();
    assert!(second.log().contains(&format!("the shmd with pid {pid} uses it")), "{}", second.log());
    assert!(first.object("main").exists());
    second.prefix = "shmd-test-none".to_owned();
}

#[test]
fn the_daemon_ends_after_its_input_when_every_reader_has_read_everything() {
    let config = "[[channel]]\nname = \"main\"\nsource = \"stdin\"\nwait_readers = 1\ncapacity = \"64KiB\"\n";
    let mut daemon = Daemon::configured("eof", config);
    daemon.run(&["--exit-on-eof"]);
    daemon.await_ready();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    for n in 0..1000 {
        daemon.feed(format!("line {n}\n").as_bytes());
    }
    daemon.end_input();
    let mut bytes = Vec::new();
    for n in 0..1000 {
        if n == 500 {
            daemon.await_log(|log| log.contains("event=source-end"));
            assert!(daemon.child.as_mut().unwrap().try_wait().unwrap().is_none());
        }
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, format!("line {n}").as_bytes());
    }
    assert!(matches!(reader.recv_into(&mut bytes, Some(PATIENCE)), Err(ReaderError::Closed { .. })));
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn after_the_end_of_input_the_writer_role_can_be_lent() {
    let mut daemon = Daemon::start("after-eof", "[[channel]]\nname = \"main\"\nsource = \"stdin\"\n");
    let taken =
        daemon.refused(&Request::Publish { channel: None, program: None, layout: LAYOUT_VERSION, expect: None });
    assert_eq!(
        taken,
        "channel main: the daemon's own source stdin holds the writer role; the role is free when the source ends"
    );
    daemon.feed(b"from stdin\n");
    daemon.end_input();
    daemon.await_log(|log| log.contains("event=source-end"));
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(b"from a program").unwrap();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    for expected in [&b"from stdin"[..], b"from a program"] {
        let mut bytes = Vec::new();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, expected);
    }
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn an_input_that_stays_open_does_not_hold_the_end_up() {
    let mut daemon = Daemon::start("open-input", "[[channel]]\nname = \"main\"\nsource = \"stdin\"\n");
    daemon.feed(b"half a line");
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("source-stuck"), "{}", daemon.log());
    wait_for(|| !daemon.object("main").exists(), || daemon.log());
    daemon.assert_gone();
}
