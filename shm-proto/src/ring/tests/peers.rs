//! Readers and writers that come, go, sleep, lie and die.

use std::time::Instant;

use super::*;

#[test]
fn an_acknowledged_publish_waits_for_every_reader() {
    // On a busy machine, a reader may not run for a second.
    let mut channel = TestChannel::new(4096, Geometry { ack: true, ack_timeout_ms: 60_000, ..geometry(4096) });
    let mut readers = [channel.reader(Start::Oldest), channel.reader(Start::Oldest)];
    let mut writer = channel.writer();
    let error = writer.publish_acked(b"x", Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().contains("2 of 2 readers"), "{error}");
    for reader in &mut readers {
        assert_eq!(receive(reader), b"x");
    }
    std::thread::scope(|scope| {
        let handles: Vec<_> = readers
            .iter_mut()
            .map(|reader| scope.spawn(move || (0..500u64).for_each(|n| assert_eq!(receive(reader), n.to_le_bytes()))))
            .collect();
        for n in 0..500u64 {
            writer.publish(&n.to_le_bytes()).unwrap();
            assert!(writer.is_drained());
        }
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

#[test]
fn a_reader_that_stands_still_is_evicted_and_told_so() {
    let mut channel = TestChannel::new(4096, Geometry { evict_after_ms: 50, ..geometry(4096) });
    let mut stuck = channel.reader(Start::Oldest);
    let mut good = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    // In the writer's thread, because on a busy machine a second thread might also stand still for 50 ms.
    let mut next = 0u64;
    for n in 0..1000u64 {
        if let Err(WriterError::WouldBlock { .. }) = writer.try_publish(&n.to_le_bytes()) {
            while good.try_recv().unwrap().is_some() {
                next += 1;
            }
            writer.publish(&n.to_le_bytes()).unwrap();
        }
    }
    for n in next..1000 {
        assert_eq!(receive(&mut good), n.to_le_bytes());
    }
    assert!(matches!(stuck.recv(SOON), Err(ReaderError::Evicted { .. })));
    let lines = channel.obey();
    let [ToDaemon::Evicted { reader: 1, reason }] = &lines[..] else { panic!("{lines:?}") };
    assert!(reason.contains("it read nothing for"), "{reason}");
    assert_eq!(Snapshot::read(channel.segment.as_fd()).unwrap().evicted, 1);
}

#[test]
fn an_impossible_cursor_gets_its_reader_evicted_and_nobody_else_harmed() {
    for lie in [u64::MAX - 1, 1 << 40, 12] {
        let mut channel = TestChannel::new(4096, geometry(4096));
        let _liar = channel.reader(Start::Oldest);
        let mut good = channel.reader(Start::Oldest);
        let mut writer = channel.writer();
        for n in 0..10u64 {
            writer.publish(&n.to_le_bytes()).unwrap();
        }
        channel.readers[0].page.line.cursor.store(lie, Ordering::SeqCst);
        for n in 0..2000u64 {
            if n >= 10 {
                writer.publish(&n.to_le_bytes()).unwrap();
            }
            assert_eq!(receive(&mut good), n.to_le_bytes());
        }
        let lines = channel.obey();
        assert!(matches!(&lines[..], [ToDaemon::Evicted { reader: 1, .. }]), "cursor {lie}: {lines:?}");
    }
}

#[test]
fn a_second_writer_goes_on_where_the_first_stopped() {
    let mut channel = TestChannel::new(8192, geometry(8192));
    let mut reader = channel.reader(Start::Oldest);
    let mut n = 0;
    for round in 0..50u64 {
        let mut writer = channel.writer();
        for _ in 0..round {
            writer.publish(&message(n, 400)).unwrap();
            n += 1;
            if n % 2 == 0 {
                while reader.seq() + 3 < n {
                    let expected = message(reader.seq(), 400);
                    assert_eq!(receive(&mut reader), expected);
                }
            }
        }
        // The writer dies with a half-filled slot and does not clean up.
        let mut slot = writer.reserve(300).unwrap().unwrap();
        slot.fill(0x5a);
        slot.abort();
        std::mem::forget(writer);
    }
    while reader.seq() < n {
        let expected = message(reader.seq(), 400);
        assert_eq!(receive(&mut reader), expected);
    }
    assert!(reader.try_recv().unwrap().is_none());
}

#[test]
fn a_chain_that_makes_no_sense_is_refused_with_its_place() {
    let no_kind = 7;
    let longer_than_the_segment = record::Header::data(1 << 30, 0).0;
    let first = record::first_header(record::LEAST_ALIGN);
    let in_a_circle = record::Header::jump(first, 0).0;
    let out_of_the_segment = record::Header::jump((1 << 40) + 8, 0).0;
    let of_another_message = record::Header::data(8, 1).0;
    for word in [no_kind, longer_than_the_segment, in_a_circle, out_of_the_segment, of_another_message] {
        let mut channel = TestChannel::new(4096, geometry(4096));
        nix::sys::uio::pwrite(&channel.segment, &u64::to_le_bytes(word), (DATA_OFFSET + first) as i64).unwrap();
        let error = channel.try_writer().unwrap_err();
        assert!(matches!(error, WriterError::Corrupt { .. }), "{error}");
        let mut reader = channel.reader(Start::Oldest);
        let error = reader.recv(NOW).unwrap_err();
        assert!(matches!(error, ReaderError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_closed_channel_is_read_to_its_end() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(b"last").unwrap();
    channel.close();
    assert_eq!(receive(&mut reader), b"last");
    assert!(matches!(reader.recv(None), Err(ReaderError::Closed { .. })));
}

#[test]
fn a_revoked_writer_publishes_nothing_more() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut writer = channel.writer();
    writer.publish(b"x").unwrap();
    channel.send(ToWriter::Revoked { reason: "the channel is closing".to_owned() }, Vec::new());
    for _ in 0..2 {
        assert!(matches!(writer.publish(b"y"), Err(WriterError::Revoked { .. })));
    }
    assert_eq!(Snapshot::read(channel.segment.as_fd()).unwrap().tail.seq, 1);
}

#[test]
fn a_writer_that_the_daemon_has_given_up_leaves_the_ring_to_the_next_and_one_whose_daemon_died_goes_on() {
    for ended in [true, false] {
        let mut channel = TestChannel::new(4096, geometry(4096));
        let mut reader = channel.reader(Start::Oldest);
        let mut first = channel.writer();
        first.publish(b"first").unwrap();
        if !ended {
            channel.die();
            first.maintain().unwrap();
            first.publish(b"second").unwrap();
            assert_eq!((receive(&mut reader), receive(&mut reader)), (b"first".to_vec(), b"second".to_vec()));
            continue;
        }
        channel.end_lease();
        let mut second = channel.writer();
        for n in 0..300u64 {
            second.publish(&n.to_le_bytes()).unwrap();
            match n % 4 {
                0 => assert!(matches!(first.publish(b"stale"), Err(WriterError::Revoked { .. }))),
                1 => assert!(matches!(first.reserve(8), Err(WriterError::Revoked { .. }))),
                2 => assert!(matches!(first.maintain(), Err(WriterError::Revoked { .. }))),
                _ => assert!(first.is_drained()),
            }
            if n == 0 {
                assert_eq!(receive(&mut reader), b"first");
            }
            assert_eq!(receive(&mut reader), n.to_le_bytes());
        }
        drop(first);
        let shot = Snapshot::read(channel.segment.as_fd()).unwrap();
        assert_eq!((shot.writer_pid, shot.evicted), (u64::from(std::process::id()), 0));
    }
}

#[test]
fn publishing_waits_for_as_many_readers_as_the_channel_wants() {
    let mut channel = TestChannel::new(4096, Geometry { wait_readers: 2, ..geometry(4096) });
    let mut writer = channel.writer();
    let mut first = channel.reader(Start::Oldest);
    let error = writer.publish_within(b"x", Duration::from_millis(30)).unwrap_err();
    assert!(error.to_string().contains("2 readers") && error.to_string().contains("1 attached"), "{error}");
    let mut second = channel.reader(Start::New);
    writer.publish(b"x").unwrap();
    assert_eq!((receive(&mut first), receive(&mut second)), (b"x".to_vec(), b"x".to_vec()));
    channel.detach(1);
    assert!(matches!(writer.publish_within(b"y", Duration::from_millis(30)), Err(WriterError::TimedOut { .. })));
}

#[test]
fn publishing_that_waits_for_readers_hears_that_fewer_are_enough_and_goes_on_shrinking() {
    let mut channel = TestChannel::new(65536, Geometry { wait_readers: 1, ..geometry(65536) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..200 {
        writer.publish(&message(n, 200)).unwrap();
    }
    let policy =
        |wait_readers| ToWriter::Policy { ack: false, ack_timeout_ms: 1, evict_after_ms: 60_000, wait_readers };
    channel.send(policy(2), Vec::new());
    channel.shrink(8192);
    let publishing = std::thread::spawn(move || writer.publish(b"last").unwrap());
    for n in 0..200 {
        assert_eq!(receive(&mut reader), message(n, 200));
    }
    wait_until("the shrink is done", || {
        assert!(reader.try_recv().unwrap().is_none());
        channel.obey().iter().any(|line| matches!(line, ToDaemon::Shrunk { .. }))
    });
    assert!(!publishing.is_finished());
    channel.send(policy(1), Vec::new());
    assert_eq!(receive(&mut reader), b"last");
    assert_eq!(publishing.join().unwrap(), Some(200));
}

#[test]
fn an_evicted_reader_is_none_of_those_that_publishing_waits_for() {
    let mut channel = TestChannel::new(4096, Geometry { wait_readers: 1, evict_after_ms: 30, ..geometry(4096) });
    let _stuck = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let patience = Instant::now() + Duration::from_secs(60);
    let error = loop {
        assert!(Instant::now() < patience, "it is not evicted, or publishing goes on without a reader");
        match writer.publish_within(b"12345678", Duration::from_millis(300)) {
            Ok(_) => {}
            // On a busy machine, this timeout may come before the eviction.
            Err(WriterError::TimedOut { what, .. }) if what.contains("space") => {}
            Err(e) => break e.to_string(),
        }
    };
    assert!(error.contains("1 reader ") && error.contains("0 attached"), "{error}");
    assert!(writer.messages() < 4096 / 16, "{}", writer.messages());
}

/// The record was begun before the writer knew the reader, and becomes visible after the reader has gone to sleep.
#[test]
fn a_reader_that_attaches_while_a_slot_is_filled_is_woken_for_it() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut writer = channel.writer();
    for n in 0..50u64 {
        let mut slot = writer.reserve(8).unwrap().unwrap();
        let mut reader = channel.reader(Start::New);
        assert!(reader.arm().unwrap());
        slot.copy_from_slice(&n.to_le_bytes());
        slot.commit(8).unwrap();
        writer.maintain().unwrap();
        let ready = poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
        assert_eq!(ready, Ok(1), "the bell did not ring");
        assert_eq!(receive(&mut reader), n.to_le_bytes());
        channel.detach(channel.readers[0].id);
    }
}

#[test]
fn lingering_sees_a_message_and_ends_when_there_is_none() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut writer = channel.writer();
    let mut reader = channel.reader(Start::New);
    for n in 0..50u64 {
        assert!(!reader.linger(), "nothing is there");
        assert!(reader.arm().unwrap());
        writer.publish(&n.to_le_bytes()).unwrap();
        // The second time follows a short sleep, so the reader looks for longer.
        assert!(reader.linger() && reader.linger(), "message {n} is there");
        assert_eq!(receive(&mut reader), n.to_le_bytes());
        assert!(reader.try_recv().unwrap().is_none());
    }
}

#[test]
fn a_sleeping_reader_is_woken_by_semaphore_and_by_bell() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut channel = TestChannel::new(65536, geometry(65536));
    let mut asleep = channel.reader(Start::Oldest);
    let mut polling = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    std::thread::scope(|scope| {
        scope.spawn(move || (0..300u64).for_each(|n| assert_eq!(receive(&mut asleep), n.to_le_bytes())));
        scope.spawn(move || {
            let mut n = 0u64;
            while n < 300 {
                if polling.arm().unwrap() {
                    let ready =
                        poll(&mut [PollFd::new(polling.as_fd(), PollFlags::POLLIN)], PollTimeout::from(60_000u16));
                    assert_eq!(ready, Ok(1), "the bell did not ring for message {n}");
                }
                while let Some(got) = polling.try_recv().unwrap() {
                    assert_eq!(got.words().next(), Some(n));
                    drop(got);
                    n += 1;
                }
            }
        });
        for n in 0..300u64 {
            writer.publish(&n.to_le_bytes()).unwrap();
            std::thread::sleep(Duration::from_micros(200));
        }
    });
}

/// As if it were still reading a segment before this one.
#[test]
fn a_reader_that_counts_up_far_behind_the_floor_is_evicted() {
    let mut channel = TestChannel::new(4096, Geometry { evict_after_ms: 100, ..geometry(4096) });
    let mut writer = channel.writer();
    for n in 0..1000u64 {
        writer.publish(&n.to_le_bytes().repeat(8)).unwrap();
    }
    let _liar = channel.reader(Start::Oldest);
    let patience = Instant::now() + Duration::from_secs(60);
    for cursor in 1.. {
        assert!(Instant::now() < patience, "it is not evicted");
        channel.readers[0].page.line.cursor.store(cursor, Ordering::SeqCst);
        let _ = writer.publish_within(&[0; 64], Duration::from_millis(10));
        if channel.hear().iter().any(|line| matches!(line, ToDaemon::Evicted { .. })) {
            return;
        }
    }
}
