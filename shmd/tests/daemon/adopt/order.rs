//! Writers and readers that come back in another order than usual, or not at all.

use std::fs::File;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use shm_proto::internal::ring::layout::{LAYOUT_VERSION, LEFT};
use shm_proto::internal::ring::noted_unnamed;
use shm_proto::{Reader, ReaderError, Request, Start, Writer};

use super::{LENT, is_woken, number, publish};
use crate::{Daemon, PATIENCE, joined, wait_for};

/// The first writer has lived through the death and knows the reader. The second one does not.
#[test]
fn a_reader_that_is_slow_to_come_back_loses_nothing_if_the_writer_that_knew_it_is_gone() {
    let mut daemon = Daemon::start("adopt-slow", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let segment = File::open(daemon.object("main")).unwrap();
    publish(&mut writer, 0..100);
    daemon.die();
    daemon.come_back();
    daemon.await_writer(&mut writer);
    drop(writer);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    let endpoint = daemon.endpoint();
    let publishing = thread::spawn(move || {
        let mut writer = Writer::attach(&endpoint, None).unwrap();
        publish(&mut writer, 100..100_000);
        writer
    });
    // Not in the segment in which the reader is. The writer has the time to fill its ring many times.
    daemon.await_log(|log| log.contains("event=move channel=main"));
    assert_eq!(noted_unnamed(segment.as_fd()).unwrap(), LEFT, "for a writer that has not found this daemon");
    thread::sleep(Duration::from_millis(200));
    assert!((0..100_000).all(|n| number(&mut reader) == n));
    drop(joined(publishing));
    assert_eq!((reader.received(), reader.lost()), (100_000, 0));
}

/// The writer takes the reader's flag, and rings the bell that the reader had before the death.
#[test]
fn a_reader_that_is_back_is_woken_for_the_message_of_a_writer_that_is_not() {
    let mut daemon = Daemon::start("adopt-other-bell", LENT);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let lonely = daemon.endpoint().with_patience(Duration::ZERO);
    let mut writer = Writer::attach(&lonely, None).unwrap();
    publish(&mut writer, 0..100);
    assert!((0..100).all(|n| number(&mut reader) == n));
    daemon.die();
    daemon.come_back();
    let is_back = |reader: &mut Reader| {
        assert!(reader.try_recv().unwrap().is_none());
        daemon.stat().readers.len() == 1
    };
    wait_for(|| is_back(&mut reader), || daemon.log());
    // It hears the daemon's answer, and sleeps.
    let sleeps = |reader: &mut Reader| {
        assert!(reader.try_recv().unwrap().is_none());
        let asleep = reader.arm().unwrap();
        asleep && !is_woken(reader, Duration::ZERO)
    };
    wait_for(|| sleeps(&mut reader), || daemon.log());
    publish(&mut writer, 100..101);
    assert!(is_woken(&reader, PATIENCE), "{}", daemon.log());
    assert_eq!(number(&mut reader), 100);
}

/// Its source has ended before the reader is back.
#[test]
fn a_daemon_that_ends_with_its_input_waits_for_readers_that_are_not_back_yet() {
    let mut daemon = Daemon::configured("adopt-eof", &format!("{LENT}source = \"stdin\"\n"));
    daemon.run(&["--exit-on-eof"]);
    daemon.await_ready();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let receive = |reader: &mut Reader| {
        let mut bytes = Vec::new();
        reader.recv_into(&mut bytes, Some(PATIENCE)).map(|_| bytes)
    };
    daemon.feed(b"before\n");
    assert_eq!(receive(&mut reader).unwrap(), b"before");
    daemon.die();
    daemon.run(&["--exit-on-eof"]);
    daemon.await_ready();
    daemon.feed(b"after\n");
    daemon.end_input();
    daemon.await_log(|log| log.contains("event=source-end"));
    thread::sleep(Duration::from_millis(200));
    assert_eq!(receive(&mut reader).unwrap(), b"after");
    assert!(matches!(receive(&mut reader), Err(ReaderError::Closed { .. })));
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.log());
    assert!(!daemon.object("main").exists());
}

/// Both have their places already. The new writer must not write over what the second one still reads.
#[test]
fn readers_stay_if_the_next_daemon_takes_fewer() {
    let readers = |most: u32| format!("{LENT}max_readers = {most}\n");
    let mut daemon = Daemon::start("adopt-fewer", &readers(2));
    let mut both = [(); 2].map(|()| Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap());
    let [first, second] = &mut both;
    publish(&mut Writer::attach(&daemon.endpoint(), None).unwrap(), 0..1000);
    assert!((0..1000).all(|n| number(first) == n));
    assert_eq!(number(second), 0);
    daemon.die();
    daemon.config = readers(1);
    daemon.come_back();
    // One is back before somebody writes.
    let is_back = |reader: &mut Reader| {
        assert!(reader.try_recv().unwrap().is_none());
        daemon.stat().readers.len() == 1
    };
    wait_for(|| is_back(first), || daemon.log());
    let endpoint = daemon.endpoint();
    let publishing = thread::spawn(move || {
        let mut writer = Writer::attach(&endpoint, None).unwrap();
        publish(&mut writer, 1000..100_000);
        writer
    });
    daemon.await_log(|log| log.matches("event=lend").count() == 2);
    thread::sleep(Duration::from_millis(200));
    thread::scope(|scope| {
        scope.spawn(|| assert!((1000..100_000).all(|n| number(first) == n)));
        assert!((1..100_000).all(|n| number(second) == n));
    });
    drop(joined(publishing));
    assert_eq!(daemon.stat().readers.len(), 2);
    daemon.refused(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None });
}

#[test]
fn a_reader_keeps_its_place_if_another_one_attaches_before_it_is_back() {
    let mut daemon = Daemon::start("adopt-place", &format!("{LENT}max_readers = 1\n"));
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    daemon.die();
    daemon.come_back();
    let _newcomer = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let is_back = |reader: &mut Reader| {
        assert!(reader.try_recv().unwrap().is_none());
        daemon.stat().readers.len() == 2
    };
    wait_for(|| is_back(&mut reader), || daemon.log());
}
