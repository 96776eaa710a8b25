//! Readers follow a channel to a new segment: no message is lost, none comes twice, and none comes from a writer that
//! has lost its role.

use super::*;
use crate::ring::layout::control;
use crate::ring::segment::WritableSegment;
use crate::ring::testing::TestChannel;

fn number(reader: &mut Reader) -> u64 {
    u64::from_le_bytes(receive(reader).try_into().unwrap())
}

/// Stores a record at the tail of a segment, as a writer without the role might.
fn store_stale(segment: &WritableSegment, tail: published::Place) {
    commit::commit(segment, tail.off, record::Header::data(8, tail.seq), tail.off + 16);
}

#[test]
fn readers_at_any_place_follow_in_order() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut readers: Vec<Reader> = (0..4).map(|_| channel.connected_reader(Start::Oldest)).collect();
    let mut n = 0u64;
    for round in 0..30 {
        let mut writer = channel.writer();
        for _ in 0..round {
            writer.publish(&n.to_le_bytes()).unwrap();
            n += 1;
            // Each reader is behind by a different number.
            for (behind, reader) in readers.iter_mut().enumerate() {
                while reader.seq() + 7 * (behind as u64) < n {
                    let expected = reader.seq();
                    assert_eq!(number(reader), expected);
                }
            }
        }
        channel.move_on();
        assert!(matches!(writer.publish(b"stale"), Err(WriterError::Revoked { .. })));
    }
    for reader in &mut readers {
        while reader.seq() < n {
            let expected = reader.seq();
            assert_eq!(number(reader), expected);
        }
        assert_eq!((reader.received(), reader.lost()), (n, 0));
        assert!(reader.try_recv().unwrap().is_none());
        assert_eq!(reader.geometry().instance, 72);
    }
    let tail = Snapshot::read(channel.segment.as_fd()).unwrap().tail;
    assert_eq!((tail.seq, tail.bytes), (n, 8 * n));
}

#[test]
fn what_a_writer_stores_after_the_end_of_its_segment_is_no_message() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut readers: Vec<Reader> = (0..5).map(|_| channel.connected_reader(Start::Oldest)).collect();
    let old = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
    let mut writer = channel.writer();
    writer.publish(&0u64.to_le_bytes()).unwrap();
    writer.publish(&1u64.to_le_bytes()).unwrap();
    for reader in &mut readers[1..] {
        assert_eq!((number(reader), number(reader)), (0, 1));
    }
    let [behind, first, second, third, fourth] = &mut readers[..] else { unreachable!() };
    assert!(second.arm().unwrap() && third.arm().unwrap(), "they have read everything");
    channel.end_lease();
    let end = channel.begin_move();
    store_stale(&old, end);
    // One reader finds the record before it knows where the segment ends, and does not ask what it was.
    assert_eq!(first.try_recv().unwrap().unwrap().seq(), 2);
    assert!(first.try_recv().unwrap().is_none());
    // The others have seen the move before.
    assert!(second.arm().unwrap() && second.try_recv().unwrap().is_none());
    assert!(matches!(third.recv(NOW), Err(ReaderError::TimedOut { .. })));
    // One reader has begun to read the record when it sees the move, and asks before it knows where the segment ends.
    let page = channel.readers[4].page_again();
    page.control.value.fetch_sub(control::MOVE, Ordering::SeqCst);
    let held = fourth.recv(SOON).unwrap();
    assert_eq!((held.seq(), held.len()), (2, 8));
    page.control.value.fetch_add(control::MOVE, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let finished = scope.spawn(|| held.finish());
        channel.finish_move(end, 4096);
        let finished = finished.join().unwrap();
        assert!(matches!(finished, Err(ReaderError::Withdrawn { seq: 2, .. })), "{finished:?}");
    });
    let mut writer = channel.writer();
    for n in 2..400u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
        if n == 2 {
            assert_eq!((number(behind), number(behind)), (0, 1));
        }
        for reader in [&mut *behind, &mut *first, &mut *second, &mut *third, &mut *fourth] {
            assert_eq!(number(reader), n);
            assert_eq!(reader.lost(), 0);
        }
    }
}

#[test]
fn a_reader_that_is_still_in_the_old_segment_counts_as_attached_and_is_waited_for() {
    let mut channel = TestChannel::new(4096, Geometry { wait_readers: 1, ..geometry(4096) });
    let mut reader = channel.connected_reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut sent = 0u64;
    let mut fill = |writer: &mut Writer| {
        loop {
            match writer.try_publish(&sent.to_le_bytes()) {
                Ok(_) => sent += 1,
                Err(WriterError::WouldBlock { .. }) => break sent,
                Err(e) => panic!("{e}"),
            }
        }
    };
    let first = fill(&mut writer);
    channel.move_on();
    let mut writer = channel.writer();
    let both = fill(&mut writer);
    assert!(both > first, "the new segment takes messages before its reader has come");
    let error = writer.publish_acked(b"x", Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, WriterError::TimedOut { .. }), "{error}");
    for n in 0..both {
        assert_eq!(number(&mut reader), n);
    }
    assert!(reader.try_recv().unwrap().is_none());
    writer.publish_within(b"more", Duration::from_secs(60)).unwrap();
    assert_eq!((receive(&mut reader), reader.lost()), (b"more".to_vec(), 0));
    assert!(channel.obey().is_empty(), "nobody was evicted");
}

#[test]
fn a_slow_reader_that_is_still_in_the_old_segment_is_not_evicted_while_it_reads() {
    let mut channel = TestChannel::new(4096, Geometry { evict_after_ms: 300, ..geometry(4096) });
    let mut reader = channel.connected_reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut sent = 0u64;
    let mut fill = |writer: &mut Writer, timeout| {
        while writer.publish_within(&sent.to_le_bytes(), timeout).is_ok() {
            sent += 1;
        }
    };
    fill(&mut writer, Duration::ZERO);
    channel.move_on();
    let mut writer = channel.writer();
    fill(&mut writer, Duration::ZERO);
    // Far longer than `evict_after` in all.
    for n in 0..30 {
        fill(&mut writer, Duration::from_millis(50));
        assert_eq!(number(&mut reader), n);
    }
    let lines = channel.obey();
    assert!(!lines.iter().any(|line| matches!(line, ToDaemon::Evicted { .. })), "{lines:?}");
}

#[test]
fn a_reader_of_a_daemon_that_died_in_the_middle_of_a_move_stays_where_it_is() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.connected_reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(&0u64.to_le_bytes()).unwrap();
    channel.mark_moved();
    channel.readers.clear();
    channel.die();
    writer.publish(&1u64.to_le_bytes()).unwrap();
    assert_eq!((number(&mut reader), number(&mut reader)), (0, 1));
    assert!(reader.is_disconnected());
}

#[test]
fn a_reader_without_a_descriptor_to_spare_says_why_it_cannot_follow() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.connected_reader(Start::Oldest);
    let mut writer = channel.writer();
    writer.publish(&0u64.to_le_bytes()).unwrap();
    channel.mark_moved();
    channel.tell_of_a_move_without_descriptor();
    // The reader does not know where the segment ends, so nothing there is valid.
    for _ in 0..2 {
        let error = reader.recv(NOW).map(drop).unwrap_err().to_string();
        assert!(error.contains("new segment") && error.contains("ulimit -n"), "{error}");
    }
}

#[test]
fn a_writer_without_the_role_evicts_no_reader_that_is_ahead_of_it() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.connected_reader(Start::Oldest);
    let mut former = channel.writer();
    former.publish(b"before").unwrap();
    channel.move_on();
    let mut writer = channel.writer();
    for _ in 0..100 {
        receive(&mut reader);
        writer.publish(b"after").unwrap();
    }
    // As if the writer were looking at its readers when the role ended: the cursor is beyond everything that the writer
    // wrote.
    former.refresh();
    assert!(matches!(former.publish(b"stale"), Err(WriterError::Revoked { .. })));
    receive(&mut reader);
    assert_eq!((reader.received(), reader.lost()), (101, 0));
}
