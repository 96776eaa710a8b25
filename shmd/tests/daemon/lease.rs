//! The writer role: who ends it, and what somebody who has lost it can still do.

use std::fs;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use shm_proto::{Error, ErrorKind, Reader, Start, Writer, WriterError};

use super::{Daemon, PATIENCE, wait_for};

/// Longer than the daemon waits for anybody else to take what it has sent.
const LONG: Duration = Duration::from_secs(6);

impl Daemon {
    fn descriptors(&self) -> usize {
        let pid = self.child.as_ref().unwrap().id();
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
    }

    fn join(&self, start: Start) -> Reader {
        // Refused while those before have not been missed yet.
        let until = Instant::now() + PATIENCE;
        loop {
            match Reader::attach(&self.endpoint(), None, start) {
                Ok(reader) => return reader,
                Err(e) => assert!(Instant::now() < until, "{e}: {}", self.log()),
            }
        }
    }
}

/// A writer's connection, to end it without the writer's knowing.
fn link(writer: &Writer) -> UnixStream {
    UnixStream::from(writer.link_fd().unwrap().try_clone_to_owned().unwrap())
}

#[test]
fn readers_that_come_and_go_never_end_the_role_of_a_writer_that_does_not_look() {
    let daemon = Daemon::start("deaf", "[[channel]]\nname = \"main\"\nmax_readers = 8\n");
    let mut deaf = Writer::attach(&daemon.endpoint(), None).unwrap();
    deaf.publish(b"first").unwrap();
    let mut stays = daemon.join(Start::New);
    let (began, before, mut rounds) = (Instant::now(), daemon.descriptors(), 0);
    while rounds < 1500 || began.elapsed() < LONG {
        drop(daemon.join(Start::New));
        rounds += 1;
    }
    let mut late = daemon.join(Start::New);
    assert!(daemon.stat().writer.is_some(), "after {rounds} rounds: {}", daemon.log());
    // The lines that it has not taken carry two each, and whoever has just left may not have been missed.
    let more = daemon.descriptors() - before;
    assert!(more < 64, "{more} more descriptors after {rounds} rounds");
    let mut bytes = Vec::new();
    for n in 0..100u64 {
        deaf.publish(&n.to_le_bytes()).unwrap();
    }
    for reader in [&mut stays, &mut late] {
        for n in 0..100u64 {
            let got = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!((&bytes[..], got.lost_before), (&n.to_le_bytes()[..], 0));
        }
    }
    wait_for(|| deaf.maintain().is_ok() && deaf.readers() == 2, || daemon.log());
}

#[test]
fn a_writer_that_has_lost_the_role_without_knowing_writes_nothing_beside_the_next() {
    let daemon = Daemon::start("lost", "[[channel]]\nname = \"main\"\n");
    let mut first = Writer::attach(&daemon.endpoint(), None).unwrap();
    first.publish(b"first").unwrap();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    link(&first).shutdown(Shutdown::Both).unwrap();
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    let mut next = Writer::attach(&daemon.endpoint(), None).unwrap();
    let mut bytes = Vec::new();
    for n in 0..100u64 {
        let refused = first.publish(b"stale").unwrap_err();
        assert!(matches!(refused, WriterError::Revoked { .. }), "{refused}");
        next.publish(&n.to_le_bytes()).unwrap();
        if n == 0 {
            reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!(bytes, b"first");
        }
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, n.to_le_bytes());
    }
    drop(first);
    assert!(daemon.stat().writer.is_some());
}

#[test]
fn a_writer_that_cannot_write_any_more_leaves_its_segment_to_the_next() {
    let daemon = Daemon::start("same", "[[channel]]\nname = \"main\"\n");
    let mut reader = daemon.join(Start::New);
    let mut bytes = Vec::new();
    for n in 0..20u64 {
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        writer.publish(&n.to_le_bytes()).unwrap();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, n.to_le_bytes());
        drop(writer);
        wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    }
    // While another test starts a program, that child has this process's descriptors for a moment, on a busy machine for longer
    // than the daemon waits.
    let moves = daemon.log().matches("event=move").count();
    assert!(moves < 10, "{moves} moves: {}", daemon.log());
}

/// The first writer holds on to a slot when it loses the role, and commits it in the middle of what the others do.
#[test]
fn the_channel_moves_when_a_former_writer_can_still_write_and_readers_follow() {
    for policy in ["block", "drop", "overwrite"] {
        let name = format!("move-{policy}");
        let config = format!(
            "[[channel]]\nname = \"main\"\ncapacity = \"2MiB\"\nmax = \"4MiB\"\non_full = \"{policy}\"\nshrink_after = \"0\"\n"
        );
        let daemon = Daemon::start(&name, &config);
        let mut near = daemon.join(Start::New);
        let mut far = daemon.join(Start::New);
        let mut first = Writer::attach(&daemon.endpoint(), None).unwrap();
        for n in 0..1000u64 {
            first.publish(&n.to_le_bytes()).unwrap();
        }
        let mut bytes = Vec::new();
        let mut take = |reader: &mut Reader, from: u64, to: u64| {
            for n in from..to {
                let got = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
                assert_eq!((&bytes[..8], got.seq, got.lost_before), (&n.to_le_bytes()[..], n, 0), "{policy}");
            }
        };
        take(&mut near, 0, 1000);
        take(&mut far, 0, 10);
        let object = fs::metadata(daemon.object("main")).unwrap().ino();
        let link = link(&first);
        let mut slot = first.reserve(64 << 10).unwrap().unwrap();
        link.shutdown(Shutdown::Both).unwrap();
        wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
        let mut second = Writer::attach(&daemon.endpoint(), None).unwrap();
        assert_ne!(fs::metadata(daemon.object("main")).unwrap().ino(), object, "the name leads to the new segment");
        assert!(daemon.log().contains("event=move channel=main"), "{}", daemon.log());
        slot.fill(0xee);
        for n in 1000..2000u64 {
            second.publish(&n.to_le_bytes()).unwrap();
        }
        assert!(matches!(slot.commit(8), Err(WriterError::Revoked { .. })));
        // Who comes now begins in the new segment, and the others go on through both.
        let mut late = daemon.join(Start::Oldest);
        assert_eq!(late.seq(), 1000);
        take(&mut far, 10, 2000);
        take(&mut near, 1000, 2000);
        take(&mut late, 1000, 2000);
        assert_eq!((far.received(), far.lost(), near.received(), near.lost()), (2000, 0, 2000, 0));
        wait_for(|| daemon.stat().capacity == 2 << 20, || daemon.log());
        let stat = daemon.stat();
        assert_eq!((stat.messages, stat.bytes, stat.evicted, stat.dropped), (2000, 16_000, 0, 0), "{policy}");
        // The old segment's memory is given back when everybody has left it, although the first writer still has it mapped.
        wait_for(|| daemon.stat().memory <= (2 << 20) + (64 << 10), || format!("{:?}", daemon.stat()));
        drop(first);
    }
}

#[test]
fn of_those_who_ask_while_the_former_writer_can_still_write_one_gets_the_role() {
    let daemon = Daemon::start("queue", "[[channel]]\nname = \"main\"\n");
    let mut first = Writer::attach(&daemon.endpoint(), None).unwrap();
    first.publish(b"0").unwrap();
    let link = link(&first);
    let slot = first.reserve(8).unwrap().unwrap();
    link.shutdown(Shutdown::Both).unwrap();
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    let all: Vec<_> = thread::scope(|scope| {
        let ask = || scope.spawn(|| Writer::attach(&daemon.endpoint(), None));
        let asking: Vec<_> = (0..4).map(|_| ask()).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let is_taken = |one: &Result<Writer, Error>| matches!(one, Err(e) if e.refusal() == Some(ErrorKind::WriterTaken));
    assert_eq!(all.iter().filter(|one| one.is_ok()).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|one| is_taken(one)).count(), 3, "{all:?}");
    assert_eq!(daemon.log().matches("event=move ").count(), 1, "{}", daemon.log());
    assert!(matches!(slot.commit(8), Err(WriterError::Revoked { .. })));
}
