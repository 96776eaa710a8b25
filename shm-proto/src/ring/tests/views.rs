//! Several messages that are lent at once.

use super::*;
use crate::ring::layout::control;
use crate::ring::segment::WritableSegment;

/// Lends up to `most` messages and checks that they are those from number `next` on. Finishes them, and returns how many were
/// valid, and why the next one was not.
fn lend(reader: &mut Reader, most: usize, next: u64) -> Option<(usize, usize, Result<(), ReaderError>)> {
    let mut seen = Vec::new();
    let views =
        reader.lend_many(most, |data, len, seq, lost_before| seen.push((data as usize, len, seq, lost_before)))?;
    assert_eq!(views.count(), seen.len());
    assert!((1..=most).contains(&seen.len()));
    for (n, (data, len, seq, lost_before)) in seen.iter().enumerate() {
        assert_eq!((*len, *seq, *lost_before, data % 16), (8, next + n as u64, 0, 0));
    }
    let (valid, outcome) = views.finish();
    Some((seen.len(), valid, outcome))
}

#[test]
fn messages_are_lent_in_order_around_the_ring_and_their_space_is_given_back() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let (mut sent, mut next, mut most, mut together) = (0u64, 0u64, 0, 0);
    while next < 5000 {
        while writer.try_publish(&sent.to_le_bytes()).is_ok() {
            sent += 1;
        }
        most = most % 13 + 1;
        match lend(&mut reader, most, next) {
            Some((count, valid, Ok(()))) => {
                assert_eq!(count, valid);
                next += count as u64;
                together = together.max(count);
            }
            Some((.., Err(e))) => panic!("{e}"),
            // At a jump, at the end, and before the reader has looked at its first message.
            None => {
                while reader.seq() < sent && reader.lend_many(1, |_, _, _, _| ()).is_none() {
                    assert_eq!(receive(&mut reader), next.to_le_bytes());
                    next += 1;
                }
            }
        }
        assert_eq!((reader.seq(), reader.received(), reader.lost()), (next, next, 0));
    }
    assert_eq!(together, 13);
}

#[test]
fn messages_that_were_lent_and_not_finished_are_the_next_ones() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..10u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    assert_eq!(receive(&mut reader), 0u64.to_le_bytes());
    assert_eq!(reader.lend_many(4, |_, _, _, _| ()).unwrap().count(), 4);
    assert_eq!(receive(&mut reader), 1u64.to_le_bytes());
    assert!(matches!(lend(&mut reader, 100, 2), Some((8, 8, Ok(())))));
    assert!(lend(&mut reader, 100, 10).is_none());
}

#[test]
fn an_overwrite_channel_lends_one_message_at_a_time() {
    let mut channel = TestChannel::new(4096, Geometry { on_full: OnFull::Overwrite, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..10u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    for n in 0..10u64 {
        assert!(reader.lend_many(4, |_, _, _, _| ()).is_none());
        assert_eq!(receive(&mut reader), n.to_le_bytes());
    }
}

#[test]
fn nothing_of_what_an_evicted_reader_holds_is_valid() {
    let mut channel = TestChannel::new(4096, Geometry { evict_after_ms: 50, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..10u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    assert_eq!(receive(&mut reader), 0u64.to_le_bytes());
    let views = reader.lend_many(5, |_, _, _, _| ()).unwrap();
    // The writer waits for the reader, evicts it, and overwrites what it holds.
    for n in 10..1000u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    let (valid, outcome) = views.finish();
    assert_eq!(valid, 0);
    assert!(matches!(outcome, Err(ReaderError::Evicted { .. })), "{outcome:?}");
    assert!(matches!(reader.recv(SOON), Err(ReaderError::Evicted { .. })));
}

#[test]
fn messages_before_the_end_of_a_segment_are_valid_and_a_stale_one_is_withdrawn() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.connected_reader(Start::Oldest);
    let old = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
    let mut writer = channel.writer();
    for n in 0..3u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    assert_eq!(receive(&mut reader), 0u64.to_le_bytes());
    channel.end_lease();
    let end = channel.begin_move();
    commit::commit(&old, end.off, record::Header::data(8, end.seq), end.off + 16);
    // The messages are lent before the reader sees the move.
    let page = channel.readers[0].page_again();
    page.control.value.fetch_sub(control::MOVE, Ordering::SeqCst);
    let views = reader.lend_many(100, |_, _, _, _| ()).unwrap();
    assert_eq!(views.count(), 3);
    page.control.value.fetch_add(control::MOVE, Ordering::SeqCst);
    channel.finish_move(end, 4096);
    let (valid, outcome) = views.finish();
    assert_eq!(valid, 2);
    assert!(matches!(outcome, Err(ReaderError::Withdrawn { seq: 3, .. })), "{outcome:?}");
    channel.writer().publish(&3u64.to_le_bytes()).unwrap();
    assert_eq!(receive(&mut reader), 3u64.to_le_bytes());
    assert_eq!((reader.received(), reader.lost()), (4, 0));
}
