//! Writers that a daemon has to be found by: nobody can tell them that it is there.

use std::thread;
use std::time::Duration;

use shm_proto::{Reader, Start, Writer};

use super::{LENT, number, publish, publishing};
use crate::{Daemon, joined, wait_for};

/// It never rests, so it never has a reason to look at its connection, and nobody can tell it anything.
#[test]
fn a_writer_that_publishes_now_and_then_finds_the_next_daemon() {
    let mut daemon = Daemon::start("adopt-rare", LENT);
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..2);
    daemon.die();
    daemon.come_back();
    // Far fewer messages than lie between two marks.
    for n in 2..100 {
        thread::sleep(Duration::from_millis(30));
        publish(&mut writer, n..n + 1);
        if daemon.stat().writer.is_some() {
            return;
        }
    }
    panic!("the writer has not come back:\n{}", daemon.log());
}

/// Waits until the writer's patience is over.
fn give_up(daemon: &Daemon, writer: &mut Writer) {
    let mut has_given_up = || {
        writer.maintain().unwrap();
        writer.is_disconnected()
    };
    wait_for(&mut has_given_up, || daemon.log());
}

#[test]
fn a_writer_that_has_given_up_waiting_for_a_daemon_is_found_by_one_that_comes_late() {
    let mut daemon = Daemon::start("adopt-late", LENT);
    let patience = Duration::from_millis(100);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint().with_patience(patience), None).unwrap();
    publish(&mut writer, 0..1);
    daemon.die();
    give_up(&daemon, &mut writer);
    publish(&mut writer, 1..2);
    daemon.come_back();
    let mut is_back = || {
        writer.maintain().unwrap();
        daemon.stat().writer.is_some() && !writer.is_disconnected()
    };
    wait_for(&mut is_back, || daemon.log());
    let mut late = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    publish(&mut writer, 2..3);
    assert!((0..3).all(|n| number(&mut reader) == n) && number(&mut late) == 2);
}

/// It looks for a daemon once a second by now, and fills its ring many times in that time.
#[test]
fn a_reader_that_attaches_before_such_a_writer_looks_again_loses_nothing() {
    let mut daemon = Daemon::start("adopt-late-reader", LENT);
    let patience = Duration::from_millis(100);
    let mut writer = Writer::attach(&daemon.endpoint().with_patience(patience), None).unwrap();
    publish(&mut writer, 0..100);
    daemon.die();
    give_up(&daemon, &mut writer);
    daemon.come_back();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let publishing = publishing(writer, 100..100_000);
    assert!((0..100_000).all(|n| number(&mut reader) == n));
    drop(joined(publishing));
    assert_eq!((reader.received(), reader.lost()), (100_000, 0));
}
