//! Programs that are attached: a lent writer under full load and readers of all kinds.

use std::sync::atomic::Ordering;
use std::thread;

use shm_proto::{Reader, ReaderError, Start, Writer};

use super::{Daemon, Running, times};
use crate::crashed::handoff::{assert_numbers, attach, publish, read};
use crate::{PATIENCE, joined, wait_for};

#[test]
fn a_lent_writer_and_readers_under_load_notice_nothing() {
    for (name, keys) in [
        ("reexec-block", "capacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"256KiB\""),
        ("reexec-ack", "capacity = \"64KiB\"\nmax = \"64KiB\"\nack = true\nack_timeout = \"60s\""),
    ] {
        let mut daemon = Daemon::copied(name, keys);
        let running = Running::new();
        let flag = running.flag();
        let mut readers: Vec<Reader> =
            (0..3).map(|_| Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap()).collect();
        wait_for(|| daemon.stat().readers.len() == 3, || daemon.log());
        let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
        let writing = thread::spawn(move || {
            let mut n = 0u64;
            while flag.load(Ordering::Relaxed) {
                // Long and short ones.
                let mut message = n.to_le_bytes().to_vec();
                message.resize(8 + (n % 700) as usize, 7);
                assert_eq!(writer.publish(&message).unwrap(), Some(n));
                n += 1;
            }
            drop(writer);
            n
        });
        let reading: Vec<_> = readers
            .drain(..)
            .map(|mut reader| {
                thread::spawn(move || {
                    let (mut bytes, mut next) = (Vec::new(), 0u64);
                    loop {
                        match reader.recv_into(&mut bytes, Some(PATIENCE)) {
                            Ok(received) => assert_eq!((received.seq, received.lost_before), (next, 0)),
                            Err(ReaderError::Closed { .. }) => return next,
                            Err(e) => panic!("after {next}: {e}"),
                        }
                        assert_eq!(bytes[..8], next.to_le_bytes());
                        assert_eq!(bytes.len() as u64, 8 + next % 700);
                        next += 1;
                    }
                })
            })
            .collect();
        let mut before = 0;
        for _ in 0..times() {
            let so_far = before;
            // Everybody works, and has come back.
            let all = || {
                let stat = daemon.stat();
                before = stat.messages;
                stat.messages > so_far && stat.readers.len() == 3 && stat.writer.is_some()
            };
            wait_for(all, || daemon.log());
            daemon.must_reexec();
        }
        running.end();
        let written = joined(writing);
        wait_for(|| daemon.stat().readers.len() == 3, || daemon.log());
        assert_eq!(daemon.stat().messages, written);
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
        for reading in reading {
            assert_eq!(joined(reading), written);
        }
        assert!(!daemon.log().contains("event=move"), "{}", daemon.log());
    }
}

#[test]
fn a_handoff_goes_on_after_the_message_that_it_was_at() {
    let keys = "mode = \"handoff\"\ncapacity = 4096\nmin = 4096\nmax = \"1MiB\"\nack_timeout = \"60s\"";
    let mut daemon = Daemon::copied("reexec-handoff", keys);
    let count = 100 * u64::from(times());
    let reading = read(attach(&daemon));
    let writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = publish(writer, (0..count).map(|n| n.to_string()));
    for n in 0..u64::from(times()) {
        wait_for(|| daemon.stat().messages >= 90 * n, || daemon.log());
        daemon.must_reexec();
    }
    drop(joined(writing));
    wait_for(|| !daemon.stat().readers.is_empty(), || daemon.log());
    assert_eq!(daemon.stat().messages, count);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert_numbers(&joined(reading), count);
}
