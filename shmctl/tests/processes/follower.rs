//! The library's follower against real daemons: it outlives evictions, daemons and segments.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shm_proto::internal::control::stat::ReaderState;
use shm_proto::internal::os::poll::readable;
use shm_proto::{
    Attachment, Endpoint, Error, ErrorKind, Follower, HandoffError, Notice, ReaderError, RequestError, Start,
};

use shm_test_support::{Daemon, PATIENCE, Place, Setup, wait_until};

/// The next message's text, number, and losses before it.
#[track_caller]
fn receive(follower: &mut Follower) -> (String, u64, u64) {
    let mut bytes = Vec::new();
    let received = follower.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    (String::from_utf8(bytes).unwrap(), received.seq, received.lost_before)
}

/// Sleeps on the descriptor, unless the follower has something to do first, and collects what it has to say.
#[track_caller]
fn sleep(follower: &mut Follower, notices: &mut Vec<Notice>) {
    notices.extend(follower.notice());
    if follower.arm().unwrap() {
        let woken = readable(follower.as_fd(), Some(PATIENCE)).unwrap();
        assert!(woken, "nothing woke the follower, attached: {}", follower.is_attached());
    }
}

/// Waits for a message in a poll loop, and collects what the follower has to say meanwhile.
#[track_caller]
fn poll_for(follower: &mut Follower, notices: &mut Vec<Notice>) -> (u64, usize) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(message) = follower.try_recv().unwrap() {
            let found = (message.seq(), message.len());
            message.finish().unwrap();
            return found;
        }
        sleep(follower, notices);
    }
    panic!("no message");
}

/// Waits in a poll loop for a message that is handed over.
#[track_caller]
fn poll_for_handed_over(follower: &mut Follower, notices: &mut Vec<Notice>) -> String {
    let (end, mut bytes) = (Instant::now() + PATIENCE, Vec::new());
    while Instant::now() < end {
        let received = match follower.attachment().unwrap() {
            Some(Attachment::Handoff(reader)) => reader.recv_until(&mut bytes, 0),
            Some(other) => panic!("{other:?}"),
            None => Ok(None),
        };
        match received {
            Ok(Some(_)) => return String::from_utf8(bytes).unwrap(),
            Ok(None) => {}
            Err(error) => follower.go_on_after(error).unwrap(),
        }
        sleep(follower, notices);
    }
    panic!("no message");
}

#[test]
fn after_an_eviction_it_goes_on_where_it_was_and_counts_what_is_missing() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"overwrite\"\n");
    let mut follower = Follower::new(daemon.endpoint(), Some("main"), Start::Oldest).unwrap();
    let mut writer = daemon.writer();
    let (mut next, mut evictions) = (0u64, 0);
    // First everything is still there, and then most is overwritten.
    for count in [10u64, 10, 10_000, 1] {
        let sent = writer.messages();
        for n in sent..sent + count {
            writer.publish(format!("message {n}").as_bytes()).unwrap();
        }
        let before = next;
        let mut lost = 0;
        while next < sent + count {
            let (text, seq, lost_before) = receive(&mut follower);
            assert_eq!((text, seq), (format!("message {seq}"), next + lost_before));
            next = seq + 1;
            lost += lost_before;
        }
        assert_eq!((next - before, lost > 0), (count, count > 1000), "{lost} lost");
        let told = follower.notice();
        if evictions > 0 {
            assert!(
                matches!(&told, Some(Notice::Waiting { why: Error::Reader(ReaderError::Evicted { .. }), .. })),
                "{told:?}"
            );
        }
        assert!(follower.notice().is_none());
        let number = daemon.until_readers(1).readers[0].reader;
        daemon.cli(&["evict", "--reader", &number.to_string()]).quiet();
        evictions += 1;
    }
}

#[test]
fn in_a_poll_loop_one_descriptor_tells_of_daemons_segments_and_messages() {
    let place = Place::new();
    let mut follower = Follower::new(Endpoint::in_dir(&place.run_dir()), None, Start::Oldest).unwrap();
    let descriptor = follower.as_fd().as_raw_fd();
    // Several attempts, and one notice.
    let mut notices = Vec::new();
    for _ in 0..3 {
        assert!(follower.try_recv().unwrap().is_none());
        assert!(!follower.is_attached());
        sleep(&mut follower, &mut notices);
    }
    assert!(
        matches!(&notices[..], [Notice::Waiting { why: Error::Request(RequestError::NoDaemon { .. }), .. }]),
        "{notices:?}"
    );
    let mut daemon = Setup::new("").start_in(place);
    daemon.write_lines("one\n");
    assert_eq!(poll_for(&mut follower, &mut notices), (0, 3));
    daemon.write_lines("three\n");
    assert_eq!(poll_for(&mut follower, &mut notices), (1, 5));
    daemon.stop(Signal::SIGTERM);
    daemon.launch(Setup::new(""));
    daemon.write_lines("of a new segment\n");
    notices.clear();
    assert_eq!(poll_for(&mut follower, &mut notices), (0, 16));
    assert!(
        matches!(&notices[..], [Notice::Waiting { why: Error::Reader(ReaderError::Closed { .. }), .. }]),
        "{notices:?}"
    );
    daemon.kill();
    daemon.launch(Setup::new(""));
    daemon.write_lines("of the third\n");
    // That one has taken over what the one before it left.
    assert_eq!(poll_for(&mut follower, &mut notices), (1, 12));
    assert_eq!(follower.as_fd().as_raw_fd(), descriptor);
}

#[test]
fn waiting_without_a_daemon_has_a_timeout() {
    let place = Place::new();
    let mut follower = Follower::new(Endpoint::in_dir(&place.run_dir()), Some("cam"), Start::New).unwrap();
    let error = follower.recv(Some(Duration::from_millis(120))).unwrap_err();
    assert!(
        matches!(&error, Error::Reader(ReaderError::TimedOut { what, .. }) if what == "a message on channel cam"),
        "{error}"
    );
}

#[test]
fn what_attaching_again_does_not_help_against_is_returned() {
    let mut daemon = Daemon::start("[[channel]]\nname = \"cam\"\n");
    let mut misspelt = Follower::new(daemon.endpoint(), Some("cma"), Start::New).unwrap();
    assert_eq!(misspelt.try_recv().unwrap_err().refusal(), Some(ErrorKind::NoSuchChannel));
    assert!(matches!(Follower::new(daemon.endpoint(), Some("/"), Start::New), Err(Error::BadName(_))));
    // Without following, so is the end of the first attachment, every time.
    let mut once = Follower::new(daemon.endpoint(), None, Start::Oldest).unwrap().once();
    daemon.write_lines("the only one\n");
    assert_eq!(receive(&mut once), ("the only one".to_owned(), 0, 0));
    daemon.stop(Signal::SIGTERM);
    for _ in 0..2 {
        let error = once.recv(Some(PATIENCE)).unwrap_err();
        assert!(matches!(error, Error::Reader(ReaderError::Closed { .. })), "{error}");
    }
    assert!(once.notice().is_none());
}

#[test]
fn a_handoff_channel_is_attached_again_and_read_through_its_own_reader() {
    let config = "[[channel]]\nmode = \"handoff\"\n";
    let mut daemon = Daemon::start(config);
    let mut follower = Follower::new(daemon.endpoint(), None, Start::New).unwrap();
    for round in 0..2 {
        let mut bytes = Vec::new();
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "no reader in round {round}");
            match follower.attachment().unwrap() {
                Some(Attachment::Handoff(_)) => break,
                Some(other) => panic!("{other:?}"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        assert!(matches!(follower.try_recv(), Err(Error::IsHandoff { .. })));
        let mut write = daemon.spawn_piped(&["write"]);
        write.feed(b"handed over\n");
        write.end_input();
        let Some(Attachment::Handoff(reader)) = follower.attachment().unwrap() else { panic!("it is gone") };
        while reader.recv_until(&mut bytes, u64::MAX).unwrap().is_none() {}
        reader.acknowledge();
        assert_eq!(bytes, b"handed over");
        write.wait().ok();
        daemon.stop(Signal::SIGTERM);
        let closed = loop {
            let Some(Attachment::Handoff(reader)) = follower.attachment().unwrap() else { panic!("it is gone") };
            if let Err(error) = reader.recv_until(&mut bytes, u64::MAX) {
                break error;
            }
        };
        follower.go_on_after(closed).unwrap();
        assert!(matches!(
            follower.notice(),
            Some(Notice::Waiting { why: Error::Handoff(HandoffError::Closed { .. }), .. })
        ));
        daemon.launch(Setup::new(config));
    }
}

/// Publishes a text, which the follower receives and acknowledges.
#[track_caller]
fn hand_over(daemon: &Daemon, follower: &mut Follower, notices: &mut Vec<Notice>, text: &str) {
    let mut write = daemon.spawn_piped(&["write"]);
    write.feed(format!("{text}\n").as_bytes());
    write.end_input();
    assert_eq!(poll_for_handed_over(follower, notices), text);
    follower.arm().unwrap();
    write.wait().ok();
}

#[test]
fn a_handoff_channel_is_waited_for_in_a_poll_loop_across_daemons() {
    let config = "[[channel]]\nmode = \"handoff\"\nack_timeout = \"100s\"\n";
    let mut daemon = Daemon::start(config);
    let mut follower = Follower::new(daemon.endpoint(), None, Start::New).unwrap();
    let (descriptor, mut notices) = (follower.as_fd().as_raw_fd(), Vec::new());
    for text in ["one", "two", "three"] {
        hand_over(&daemon, &mut follower, &mut notices, text);
    }
    // While it sleeps, the library gives signs of life without the program: the age of the last one becomes smaller again.
    assert!(follower.arm().unwrap(), "everything is received");
    daemon.until_stat("the reader sleeps", |stat| stat.readers[0].state == ReaderState::Sleeping);
    let mut oldest = 0;
    wait_until("there is a sign of life", || {
        let age = daemon.stat().readers[0].heartbeat_ms;
        oldest = age.max(oldest);
        age < oldest
    });
    // Killed, a daemon leaves its objects to the next one, and the reader attaches again.
    daemon.kill();
    daemon.launch(Setup::new(config));
    hand_over(&daemon, &mut follower, &mut notices, "of the second");
    assert!(notices.is_empty(), "{notices:?}");
    daemon.stop(Signal::SIGTERM);
    daemon.launch(Setup::new(config));
    hand_over(&daemon, &mut follower, &mut notices, "of the third");
    assert!(
        matches!(&notices[0], Notice::Waiting { why: Error::Handoff(HandoffError::Closed { .. }), .. }),
        "{notices:?}"
    );
    // An eviction wakes it, too.
    notices.clear();
    let number = daemon.until_readers(1).readers[0].reader.to_string();
    daemon.cli(&["evict", "--reader", &number]).quiet();
    hand_over(&daemon, &mut follower, &mut notices, "after the eviction");
    assert!(
        matches!(&notices[0], Notice::Waiting { why: Error::Handoff(HandoffError::Evicted { .. }), .. }),
        "{notices:?}"
    );
    assert_eq!(follower.as_fd().as_raw_fd(), descriptor);
}
