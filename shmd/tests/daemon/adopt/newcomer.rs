//! Readers that attach to a daemon that the writer has not found yet: nobody can tell the writer of them.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_proto::{Endpoint, Reader, Start, Writer};

use super::{LENT, is_woken, number, publish, publishing};
use crate::{Daemon, PATIENCE, joined, wait_for};

/// A writer that has published 0 to 99 and that a later daemon has not heard of, and that daemon.
fn unknown(name: &str, writers: impl FnOnce(Endpoint) -> Endpoint) -> (Daemon, Writer) {
    unknown_of(name, LENT, writers)
}

/// The same with this configuration.
fn unknown_of(name: &str, config: &str, writers: impl FnOnce(Endpoint) -> Endpoint) -> (Daemon, Writer) {
    let mut daemon = Daemon::start(name, config);
    let mut writer = Writer::attach(&writers(daemon.endpoint()), None).unwrap();
    publish(&mut writer, 0..100);
    daemon.die();
    daemon.come_back();
    (daemon, writer)
}

#[test]
fn a_reader_that_is_there_before_the_writer_is_back_loses_nothing() {
    let (daemon, writer) = unknown("adopt-newcomer", |endpoint| endpoint);
    // The writer has not said a word yet, and fills its ring many times before it could.
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let publishing = publishing(writer, 100..100_000);
    assert!((0..100_000).all(|n| number(&mut reader) == n));
    drop(joined(publishing));
    assert!(daemon.log().contains("event=resume channel=main role=writer"), "{}", daemon.log());
    assert_eq!((reader.received(), reader.lost()), (100_000, 0));
}

#[test]
fn such_a_reader_loses_nothing_if_that_daemon_dies_as_well() {
    let (mut daemon, writer) = unknown("adopt-newcomer-twice", |endpoint| endpoint);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    daemon.die();
    let publishing = publishing(writer, 100..100_000);
    assert!((0..200).all(|n| number(&mut reader) == n));
    daemon.come_back();
    // The reader says nothing to the new daemon before the writer has had the time to fill its ring many times.
    daemon.await_log(|log| log.contains("event=resume channel=main role=writer"));
    thread::sleep(Duration::from_millis(200));
    assert!((200..100_000).all(|n| number(&mut reader) == n));
    drop(joined(publishing));
    assert_eq!((reader.received(), reader.lost()), (100_000, 0));
}

/// The writer has space at hand, so that nothing but the acknowledgement makes it look.
#[test]
fn a_message_is_not_acknowledged_before_such_a_reader_has_read_it() {
    let acked = format!("{LENT}ack = true\nack_timeout = \"60s\"\n");
    let (daemon, mut writer) = unknown_of("adopt-newcomer-ack", &acked, |endpoint| endpoint);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let publishing = thread::spawn(move || publish(&mut writer, 100..101));
    thread::sleep(Duration::from_millis(200));
    assert!(!publishing.is_finished(), "the reader has not read it:\n{}", daemon.log());
    assert!((0..101).all(|n| number(&mut reader) == n));
    wait_for(|| reader.try_recv().unwrap().is_none() && publishing.is_finished(), || daemon.log());
    joined(publishing);
}

/// With patience for a moment: nobody holds a writer up for ever because a daemon has died twice.
#[test]
fn a_writer_that_finds_no_daemon_goes_on_without_such_a_reader() {
    let patience = Duration::from_millis(200);
    let (mut daemon, writer) = unknown("adopt-newcomer-alone", |endpoint| endpoint.with_patience(patience));
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    daemon.die();
    let publishing = publishing(writer, 100..100_000);
    drop(joined(publishing));
    let received = reader.recv_into(&mut Vec::new(), Some(PATIENCE)).unwrap();
    assert!(received.lost_before > 0, "{received:?}");
}

/// One message, and a reader that sleeps in a poll loop when it comes. `answers`: the daemon answers a writer that looks for it.
fn wakes(name: &str, writers: impl FnOnce(Endpoint) -> Endpoint, answers: bool) {
    let (daemon, mut writer) = unknown(name, writers);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    assert!(reader.try_recv().unwrap().is_none() && reader.arm().unwrap());
    if !answers {
        daemon.freeze();
    }
    publish(&mut writer, 100..101);
    daemon.signal(Signal::SIGCONT);
    assert!(is_woken(&reader, PATIENCE), "{}", daemon.log());
    assert_eq!(number(&mut reader), 100);
}

#[test]
fn a_writer_that_publishes_once_wakes_a_reader_that_it_did_not_know() {
    wakes("adopt-newcomer-sleeps", |endpoint| endpoint, true);
}

/// Then the daemon wakes the reader.
#[test]
fn a_reader_is_woken_for_the_message_of_a_writer_that_has_not_heard_of_it() {
    wakes("adopt-newcomer-unheard", |endpoint| endpoint, false);
}

/// The same.
#[test]
fn a_reader_is_woken_for_the_message_of_a_writer_that_looks_for_no_daemon() {
    wakes("adopt-newcomer-dozes", |endpoint| endpoint.with_patience(Duration::ZERO), true);
}
