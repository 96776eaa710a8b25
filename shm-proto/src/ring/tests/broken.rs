//! Segments that a process has overwritten with garbage.

use super::*;
use crate::ring::layout::DATA_OFFSET;
use crate::ring::link::FromReader;
use crate::ring::published::Place;
use crate::ring::segment::WritableSegment;
use crate::ring::testing::TestChannel;

/// The offset of the first record of a segment.
const FIRST: u64 = record::first_header(record::LEAST_ALIGN);

fn scribble(channel: &TestChannel, off: u64, word: u64) {
    nix::sys::uio::pwrite(&channel.segment, &word.to_le_bytes(), (DATA_OFFSET + off) as i64).unwrap();
}

/// What a reader with a connection has told the daemon.
fn reports(channel: &mut TestChannel) -> Vec<FromReader> {
    channel.lines_of_readers()
}

#[test]
fn a_reader_tells_its_program_and_the_daemon_once_and_goes_on_in_the_next_segment() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.connected_reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..10u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    for n in 0..5u64 {
        assert_eq!(receive(&mut reader), n.to_le_bytes());
    }
    scribble(&channel, FIRST + 5 * 16, 0xdead_beef);
    let error = reader.recv(NOW).unwrap_err();
    assert!(matches!(&error, ReaderError::Corrupt { reason, .. } if reason.contains("0xdeadbeef")), "{error}");
    // While the daemon looks, there is nothing to receive, and the error is not reported again.
    for _ in 0..3 {
        assert!(reader.try_recv().unwrap().is_none());
        assert!(matches!(reader.recv(NOW), Err(ReaderError::TimedOut { .. })));
        assert!(reader.arm().unwrap());
    }
    let told = reports(&mut channel);
    assert!(matches!(&told[..], [FromReader::Broken { reason }] if reason.contains("0xdeadbeef")), "{told:?}");
    channel.end_lease();
    channel.broken = Some("a record was scribbled over".to_owned());
    channel.mark_moved();
    channel.finish_move(Place { pos: 8000, off: 0, seq: 500, bytes: 80 }, 4096);
    let mut writer = channel.writer();
    writer.publish(b"next").unwrap();
    let message = reader.recv(SOON).unwrap();
    assert_eq!((message.seq(), message.skipped_before(), message.lost_before()), (500, 495, 0));
    message.finish().unwrap();
    assert_eq!((reader.received(), reader.lost()), (6, 0));
}

#[test]
fn a_reader_that_has_met_nothing_wrong_reads_on_as_far_as_it_can_and_is_told_then() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.connected_reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..10u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
    }
    channel.end_lease();
    channel.broken = Some("the header says nonsense".to_owned());
    channel.mark_moved();
    channel.finish_move(Place { pos: 8000, off: 0, seq: 500, bytes: 80 }, 4096);
    let mut writer = channel.writer();
    writer.publish(b"next").unwrap();
    for n in 0..10u64 {
        assert_eq!(receive(&mut reader), n.to_le_bytes());
    }
    let error = reader.recv(SOON).unwrap_err();
    assert!(matches!(&error, ReaderError::Corrupt { reason, .. } if reason == "the header says nonsense"), "{error}");
    assert_eq!(receive(&mut reader), b"next");
    assert_eq!((reader.received(), reader.lost()), (11, 0));
    assert!(reports(&mut channel).is_empty());
}

#[test]
fn without_a_verdict_a_reader_says_so_again() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut alone = channel.reader(Start::Oldest);
    scribble(&channel, FIRST, 7);
    for _ in 0..3 {
        assert!(matches!(alone.try_recv(), Err(ReaderError::Corrupt { .. })), "nobody else would say it");
    }
}

#[test]
fn nothing_between_the_files_end_and_the_largest_capacity_is_touched() {
    // The mapping is larger than the file: access to the pages in between raises SIGBUS.
    let (file, max) = (8192, 1 << 20);
    let lies: [fn(&WritableSegment); 4] = [
        |segment| segment.header().floor.store(Place { pos: 64 << 10, off: 64 << 10, seq: 9, bytes: 0 }),
        |segment| commit::commit(segment, FIRST, record::Header::jump((64 << 10) + 8, 0), FIRST + 16),
        |segment| commit::commit(segment, FIRST, record::Header::data(64 << 10, 0), FIRST + 16),
        |segment| commit::commit(segment, FIRST, record::Header::data(8192 - 8 - FIRST, 0), FIRST + 16),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let mut channel = TestChannel::new(file, geometry(max));
        let mut reader = channel.reader(Start::Oldest);
        lie(&WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap());
        for _ in 0..2 {
            let error = reader.recv(NOW).unwrap_err();
            assert!(matches!(&error, ReaderError::Corrupt { .. }), "lie {n}: {error}");
        }
        let error = channel.try_writer().unwrap_err();
        assert!(matches!(error, WriterError::Corrupt { .. }), "lie {n}: {error}");
        assert!(
            channel.obey().iter().any(|line| matches!(line, ToDaemon::Broken { .. })),
            "lie {n}: the daemon is told"
        );
        let segment = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
        segment.header().mark.store(Place { pos: 128 << 10, off: 128 << 10, seq: 9, bytes: 0 });
    }
}

#[test]
fn a_mark_past_the_files_end_is_refused_before_it_is_touched() {
    let mut channel = TestChannel::new(8192, geometry(1 << 20));
    let segment = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
    segment.header().mark.store(Place { pos: 64 << 10, off: 64 << 10, seq: 9, bytes: 0 });
    let error = channel.try_reader(Start::New).unwrap_err();
    assert!(matches!(&error, ReaderError::Corrupt { reason, .. } if reason.contains("8192 bytes of data")), "{error}");
}

#[test]
fn readers_follow_a_file_that_grows_and_shrinks_under_them() {
    let mut channel = TestChannel::new(8192, geometry(1 << 20));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    let mut n = 0u64;
    for round in 0..60u64 {
        match round % 3 {
            0 => channel.grow(256 << 10),
            1 => channel.shrink(64 << 10),
            _ => channel.shrink(8192),
        }
        for _ in 0..200 {
            writer.publish(&message(n, 3000)).unwrap();
            let expected = message(n, 3000);
            assert_eq!(receive(&mut reader), expected, "message {n}");
            // The reader gives back what it has read if there is nothing more.
            assert!(reader.try_recv().unwrap().is_none());
            n += 1;
            writer.maintain().unwrap();
            channel.obey();
        }
    }
}

#[test]
fn a_record_that_leads_past_the_end_of_a_file_that_was_cut_is_refused() {
    let mut channel = TestChannel::new(256 << 10, geometry(1 << 20));
    let mut reader = channel.reader(Start::Oldest);
    let mut writer = channel.writer();
    for n in 0..100u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
        assert_eq!(receive(&mut reader), n.to_le_bytes());
    }
    channel.shrink(8192);
    for n in 0..1000u64 {
        writer.publish(&n.to_le_bytes()).unwrap();
        assert_eq!(receive(&mut reader), n.to_le_bytes());
        assert!(reader.try_recv().unwrap().is_none());
        writer.maintain().unwrap();
        channel.obey();
    }
    assert_eq!(channel.capacity, 8192);
    let tail = Snapshot::read(channel.segment.as_fd()).unwrap().tail;
    scribble(&channel, tail.off, record::Header::data(100 << 10, tail.seq).0);
    let error = reader.recv(NOW).map(drop).unwrap_err();
    assert!(matches!(error, ReaderError::Corrupt { .. }), "{error}");
}

#[test]
fn a_walk_finds_the_end_of_a_good_chain_and_what_is_wrong_with_a_bad_one() {
    let mut channel = TestChannel::new(64 << 10, geometry(64 << 10));
    let mut writer = channel.writer();
    let walk = |channel: &TestChannel, from| {
        let mut walk = Walk::begin(channel.segment.as_fd(), from).unwrap();
        loop {
            match walk.go_on(channel.segment.as_fd(), &channel.geometry, 1).unwrap() {
                Walked::More => {}
                found => break found,
            }
        }
    };
    for n in 0..500u64 {
        writer.publish(&message(n, 3000)).unwrap();
        let tail = Walked::Tail(Snapshot::read(channel.segment.as_fd()).unwrap().tail);
        assert_eq!((walk(&channel, WalkFrom::Floor), walk(&channel, WalkFrom::Mark)), (tail.clone(), tail));
    }
    let Snapshot { floor, tail, .. } = Snapshot::read(channel.segment.as_fd()).unwrap();
    for (off, word, says) in [
        (floor.off, 7, "is no header of"),
        (floor.off, record::Header::data(1 << 30, floor.seq).0, "impossible length"),
        (floor.off, record::Header::jump((1 << 30) + 8, floor.seq).0, "outside the 65536 bytes"),
        (floor.off, record::Header::jump(floor.off, floor.seq).0, "in circles"),
        (floor.off, record::Header::jump(tail.off, floor.seq).0, "Tail"),
    ] {
        scribble(&channel, off, word);
        let found = format!("{:?}", walk(&channel, WalkFrom::Floor));
        assert!(found.contains(says), "{found} for {word:#x}");
    }
}
