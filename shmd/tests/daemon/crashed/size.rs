//! Resizes that were pending when the daemon died, and what it had counted.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use shm_proto::internal::ring::{SizeNote, note_size, noted_size};
use shm_proto::{Reader, Request, Start, Writer};

use crate::sizes::resize;
use crate::{Daemon, PATIENCE, wait_for};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const CHANNEL: &str = "[[channel]]\nname = \"main\"\nmax = \"256MiB\"\n";
/// How often a daemon is killed while something is pending.
const KILLS: usize = 3;

fn receive(reader: &mut Reader, numbers: std::ops::Range<u32>) {
    let mut bytes = Vec::new();
    for n in numbers {
        let received = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!((received.seq, received.lost_before, bytes[0]), (n.into(), 0, n as u8));
    }
}

fn publish(writer: &mut Writer, numbers: std::ops::Range<u32>) {
    for n in numbers {
        writer.publish(&[n as u8; 1000]).unwrap();
    }
}

/// Asks for 64 KiB, which somebody who reads is in the way of.
fn ask_for_less(daemon: &Daemon, mut meanwhile: impl FnMut()) {
    thread::scope(|scope| {
        let asked = scope.spawn(|| resize(daemon, 64 * KIB));
        while !asked.is_finished() {
            meanwhile();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(asked.join().unwrap().pending);
    });
}

#[test]
fn a_shrink_that_waits_for_a_reader_is_carried_out_after_the_death_by_the_writer_that_lived() {
    let mut daemon = Daemon::start("crashed-shrink", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..800);
    ask_for_less(&daemon, || writer.maintain().unwrap());
    for _ in 0..KILLS {
        daemon.die();
        daemon.come_back();
        assert_eq!(daemon.stat().pending, Some(64 * KIB), "before the writer is back");
        // It knows the reader by itself.
        let back = |writer: &mut Writer| {
            writer.maintain().unwrap();
            daemon.stat().writer.is_some()
        };
        wait_for(|| back(&mut writer), || daemon.log());
        assert_eq!((daemon.stat().pending, daemon.stat().capacity), (Some(64 * KIB), MIB));
    }
    receive(&mut reader, 0..800);
    wait_for(
        || {
            let _ = reader.try_recv().unwrap();
            writer.maintain().unwrap();
            daemon.stat().pending.is_none()
        },
        || daemon.log(),
    );
    let stat = daemon.stat();
    assert_eq!((stat.capacity, stat.resizes), (64 * KIB, 1));
    assert!(daemon.log().contains("event=shrink channel=main old=1048576 new=65536 by=operator"), "{}", daemon.log());
    publish(&mut writer, 800..810);
    receive(&mut reader, 800..810);
    assert!(!daemon.log().contains("event=move"), "{}", daemon.log());
}

#[test]
fn a_shrink_that_a_writer_finishes_while_there_is_no_daemon_is_told_to_the_next() {
    let mut daemon = Daemon::start("crashed-shrunk", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 0..800);
    ask_for_less(&daemon, || writer.maintain().unwrap());
    daemon.die();
    receive(&mut reader, 0..800);
    // The smaller size is in the header when the writer has carried it out.
    let object = File::open(daemon.object("main")).unwrap();
    let capacity = || shm_proto::internal::ring::Snapshot::read(object.as_fd()).unwrap().capacity;
    let done = |reader: &mut Reader, writer: &mut Writer| {
        let _ = reader.try_recv().unwrap();
        writer.maintain().unwrap();
        capacity() == 64 * KIB
    };
    wait_for(|| done(&mut reader, &mut writer), || daemon.log());
    daemon.come_back();
    daemon.await_writer(&mut writer);
    let stat = daemon.stat();
    assert_eq!((stat.capacity, stat.pending), (64 * KIB, None));
    publish(&mut writer, 800..1600);
    receive(&mut reader, 800..1600);
}

#[test]
fn a_shrink_that_nobody_is_there_for_is_carried_out_when_the_readers_are_back_and_through() {
    let mut daemon = Daemon::start("crashed-helper", CHANNEL);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    publish(&mut Writer::attach(&daemon.endpoint(), None).unwrap(), 0..800);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    ask_for_less(&daemon, || ());
    for _ in 0..KILLS {
        daemon.die();
        daemon.come_back();
        assert_eq!(daemon.stat().pending, Some(64 * KIB));
    }
    receive(&mut reader, 0..800);
    wait_for(
        || {
            let _ = reader.try_recv().unwrap();
            daemon.stat().pending.is_none() && daemon.stat().capacity == 64 * KIB
        },
        || daemon.log(),
    );
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    publish(&mut writer, 800..810);
    receive(&mut reader, 800..810);
}

#[test]
fn a_size_that_no_writer_knew_of_and_what_was_counted_are_kept() {
    let mut daemon = Daemon::start("crashed-idle", CHANNEL);
    for (size, resizes) in [(32 * MIB, 1), (128 * KIB, 2), (5 * MIB, 3)] {
        resize(&daemon, size);
        wait_for(|| daemon.stat().capacity == size && daemon.stat().pending.is_none(), || daemon.log());
        daemon.die();
        daemon.come_back();
        wait_for(|| daemon.stat().capacity == size, || daemon.log());
        let stat = daemon.stat();
        assert_eq!((stat.resizes, stat.pending, stat.memory), (resizes, None, 4096 + size));
    }
    let reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    daemon.ask(&Request::Evict { channel: None, reader: 1 }).unwrap();
    drop(reader);
    daemon.die();
    daemon.come_back();
    assert_eq!(daemon.stat().evicted, 1);
}

#[test]
fn a_growth_goes_on_where_it_was() {
    let mut daemon = Daemon::start("crashed-growth", CHANNEL);
    let goal = 256 * MIB;
    let endpoint = daemon.endpoint();
    // Nobody answers it.
    let asked = thread::spawn(move || {
        let mut client = shm_proto::Client::connect(&endpoint, PATIENCE).unwrap();
        let _ = client.request(&Request::Resize { channel: None, bytes: 256 * MIB });
    });
    wait_for(|| daemon.stat().pending == Some(goal) || daemon.stat().capacity == goal, || daemon.log());
    for _ in 0..KILLS {
        daemon.die();
        daemon.come_back();
    }
    crate::joined(asked);
    wait_for(|| daemon.stat().capacity == goal, || daemon.log());
    assert_eq!(daemon.stat().memory, 4096 + goal);
    resize(&daemon, 64 * KIB);
    wait_for(|| daemon.stat().capacity == 64 * KIB, || daemon.log());
}

#[test]
fn a_note_is_believed_as_far_as_the_configuration_allows_it() {
    let mut daemon = Daemon::start("crashed-note", CHANNEL);
    let after = |daemon: &mut Daemon, goal: u64, by: u64| {
        daemon.die();
        let object = fs::OpenOptions::new().read(true).write(true).open(daemon.object("main")).unwrap();
        let counted = noted_size(object.as_fd()).unwrap();
        note_size(object.as_fd(), SizeNote { goal, by, ..counted }).unwrap();
        daemon.come_back();
    };
    for (goal, by) in [(u64::MAX, 3), (512 * MIB, 3), (1, 3), (0, 3), (64 * KIB, 0), (64 * KIB, 77)] {
        after(&mut daemon, goal, by);
        let stat = daemon.stat();
        assert_eq!((stat.capacity, stat.pending), (MIB, None), "{goal} {by}");
    }
    after(&mut daemon, 8 * MIB, 3);
    wait_for(|| daemon.stat().capacity == 8 * MIB, || daemon.log());
    daemon.await_log(|log| log.contains("event=grow channel=main old=1048576 new=8388608 by=operator"));
    after(&mut daemon, 64 * KIB, 2);
    wait_for(|| daemon.stat().capacity == 64 * KIB, || daemon.log());
    daemon.await_log(|log| log.contains("event=shrink channel=main old=1048576 new=65536 by=low-use"));
}
