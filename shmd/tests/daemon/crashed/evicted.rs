//! Readers that were evicted before the daemon died, or while there was none.

use std::thread;
use std::time::Duration;

use shm_proto::{Reader, Request, Start, Writer};

use crate::{Daemon, PATIENCE, joined, wait_for};

const CHANNEL: &str = "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"64KiB\"\n";

fn fill(writer: &mut Writer, messages: u32) {
    for _ in 0..messages {
        writer.publish(&[1; 1000]).unwrap();
    }
}

#[test]
fn a_reader_that_was_evicted_does_not_come_back_and_nobody_waits_for_it() {
    let mut daemon = Daemon::start("crashed-evicted", CHANNEL);
    let mut evicted = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut other = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    daemon.ask(&Request::Evict { channel: None, reader: 1 }).unwrap();
    daemon.die();
    daemon.come_back();
    assert!(matches!(other.recv(Some(Duration::from_millis(300))), Err(e) if e.to_string().contains("timed out")));
    wait_for(
        || {
            let _ = other.try_recv();
            daemon.stat().readers.len() == 1
        },
        || daemon.log(),
    );
    let endpoint = daemon.endpoint();
    let writing = thread::spawn(move || fill(&mut Writer::attach(&endpoint, None).unwrap(), 500));
    for _ in 0..500 {
        assert_eq!(other.recv_into(&mut Vec::new(), Some(PATIENCE)).unwrap().lost_before, 0);
    }
    joined(writing);
    let error = evicted.recv(Some(PATIENCE)).map(|message| message.seq()).unwrap_err();
    assert!(error.to_string().contains("administers the channel"), "{error}");
    assert_eq!((daemon.stat().readers.len(), daemon.stat().evicted), (1, 1));
    let log = daemon.log();
    assert!(!log.contains("event=missing") && !log.contains("event=move"), "{log}");
    assert_eq!(log.matches("event=resume").count(), 1, "{log}");
}

#[test]
fn a_reader_that_a_writer_evicts_while_there_is_no_daemon_is_not_taken_in_again() {
    let mut daemon = Daemon::start("crashed-stall", &format!("{CHANNEL}evict_after = \"300ms\"\n"));
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    daemon.die();
    // It waits for the reader as long as it would with a daemon, and no longer.
    fill(&mut writer, 200);
    assert_eq!(writer.readers(), 0);
    daemon.come_back();
    let error = loop {
        match reader.recv(Some(PATIENCE)).map(|message| message.seq()) {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("evicted"), "{error}");
    fill(&mut writer, 200);
    daemon.await_writer(&mut writer);
    assert_eq!(daemon.stat().readers, []);
    assert!(!daemon.log().contains("event=resume channel=main reader="), "{}", daemon.log());
}

#[test]
fn a_reader_that_a_writer_evicts_before_the_reader_is_back_is_counted_and_logged() {
    let mut daemon = Daemon::start("crashed-stalls", &format!("{CHANNEL}evict_after = \"300ms\"\n"));
    let reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    daemon.die();
    daemon.come_back();
    daemon.await_writer(&mut writer);
    fill(&mut writer, 200);
    wait_for(|| daemon.stat().evicted == 1, || daemon.log());
    let log = daemon.log();
    assert!(log.contains("event=evict channel=main by=writer reason=\"it held the writer up for "), "{log}");
    assert!(log.contains(" bytes behind; it was attached to the daemon before this one"), "{log}");
    drop(reader);
}
