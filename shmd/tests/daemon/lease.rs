//! The writer role: who ends it, and what somebody who has lost it can still do.

use std::fs;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use shm_proto::{Error, Reader, Start, Writer};

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

/// Ends the connection of a writer that knows nothing of it.
fn cut_off(writer: &Writer) {
    let link = UnixStream::from(writer.link_fd().unwrap().try_clone_to_owned().unwrap());
    link.shutdown(Shutdown::Both).unwrap();
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
    cut_off(&first);
    wait_for(|| daemon.stat().writer.is_none(), || daemon.log());
    let mut next = Writer::attach(&daemon.endpoint(), None).unwrap();
    let mut bytes = Vec::new();
    for n in 0..100u64 {
        let refused = first.publish(b"stale").unwrap_err();
        assert!(matches!(refused, Error::Revoked { .. }), "{refused}");
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
