//! A segment whose published places are false.

use std::io::ErrorKind;

use super::published::Place;
use super::segment::WritableSegment;
use super::*;
use shm_test_support::Raise;

/// The place that the writer publishes as the floor.
fn lie(segment: &WritableSegment, pos: u64, off: u64, seq: u64) {
    segment.header().floor.store(Place { pos, off, seq, bytes: 0 });
}

#[test]
fn a_floor_where_no_chain_can_be_is_refused_by_readers_and_the_next_writer() {
    for (pos, off, seq) in [
        (u64::MAX, 0, 1),
        (u64::MAX - 8, 0, 1),
        (8, 0, u64::MAX),
        (8, 4096, 1),
        (8, 4, 1),
        (8, u64::MAX, 1),
        (8, u64::MAX - 7, 1),
    ] {
        let mut channel = TestChannel::new(4096, geometry(4096));
        let mut reader = channel.reader(Start::Oldest);
        lie(&WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap(), pos, off, seq);
        for _ in 0..2 {
            let error = reader.recv(NOW).unwrap_err();
            assert!(matches!(error, ReaderError::Corrupt { .. }), "{error}");
        }
        let error = channel.try_writer().unwrap_err();
        assert!(matches!(error, WriterError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_floor_that_goes_back_is_an_error_and_not_a_number() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let mut reader = channel.reader(Start::Oldest);
    let segment = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
    lie(&segment, 2000, 88, 100);
    assert!(matches!(reader.recv(NOW), Err(ReaderError::TimedOut { .. })));
    assert_eq!((reader.seq(), reader.lost(), reader.received()), (100, 100, 0));
    lie(&segment, 2008, 88, 99);
    let error = reader.recv(NOW).unwrap_err();
    assert!(error.to_string().contains("the floor went back to position 2008, message 99"), "{error}");
    assert_eq!((reader.seq(), reader.lost(), reader.received()), (100, 100, 0));
}

#[test]
fn a_reader_is_not_held_up_by_a_floor_that_changes_all_the_time() {
    let mut channel = TestChannel::new(4096, Geometry { on_full: OnFull::Overwrite, ..geometry(4096) });
    let mut reader = channel.reader(Start::Oldest);
    let segment = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
    let (header, stop) = (segment.header(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                header.floor.version.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _raise = Raise(&stop);
        for _ in 0..100 {
            let got = reader.recv(NOW).map(drop);
            assert!(matches!(got, Err(ReaderError::TimedOut { .. } | ReaderError::Corrupt { .. })), "{got:?}");
        }
    });
}

#[test]
fn a_place_is_seen_whole_or_not_at_all_while_it_is_replaced() {
    // A correct writer, a writer that replaces its place between any two looks, and a writer that does nothing else.
    for pause in [200, 3, 0] {
        let channel = TestChannel::new(4096, geometry(4096));
        let segment = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap();
        let (header, stop) = (segment.header(), AtomicBool::new(false));
        header.mark.store(Place::default());
        let look = || -> Result<(), SystemError> {
            let tail = Snapshot::read(channel.segment.as_fd())?.tail;
            assert_eq!((tail.off, tail.seq, tail.bytes), (8 * (tail.pos % 500), tail.pos, tail.pos));
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    header.mark.store(Place { pos: n, off: 8 * (n % 500), seq: n, bytes: n });
                    (0..pause).for_each(|_| std::hint::spin_loop());
                }
            });
            let _raise = Raise(&stop);
            for _ in 0..20_000 {
                match look() {
                    Ok(()) => {}
                    // The check word identifies a whole copy, however often the version changes in the meantime.
                    Err(error) if pause == 0 && error.kind() == ErrorKind::ResourceBusy => {}
                    Err(e) => panic!("{e}"),
                }
            }
        });
        look().unwrap();
    }
}

#[test]
fn a_geometry_that_no_header_can_describe_is_refused() {
    let fits = record::Strides::new(record::LEAST_ALIGN, 0).largest_message(4096);
    for (max_capacity, max_message) in [(4096, fits + 1), (4096, u64::MAX), (record::MAX_CAPACITY + 4096, 1), (4095, 1)]
    {
        let channel = TestChannel::new(4096, Geometry { max_message, max_capacity, ..geometry(4096) });
        let error = WritableSegment::open(channel.segment.as_fd(), &channel.geometry).unwrap_err();
        assert!(matches!(error, WriterError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_daemon_of_another_layout_is_refused_with_both_versions_and_not_told_that_its_ring_is_broken() {
    let older = "segment has layout 1, and this program understands layout 2; use a program and a daemon of the same";
    let newer = "segment has layout 3, and this program understands layout 2; use a program and a daemon of the same";
    let richer = "has features 0x4, which this program does not know; use a program of the daemon's release";
    for (layout, features, says) in [(1, 0, older), (3, 0, newer), (2, 5, richer)] {
        let mut channel = TestChannel::new(4096, Geometry { layout, features, ..geometry(4096) });
        let read = channel.try_reader(Start::New).unwrap_err();
        assert!(matches!(read, ReaderError::OtherLayout { .. }) && read.to_string().contains(says), "{read}");
        let written = channel.try_writer().unwrap_err();
        assert!(matches!(written, WriterError::OtherLayout { .. }) && written.to_string().contains(says), "{written}");
        assert!(channel.obey().is_empty(), "the ring is not broken");
    }
}

#[test]
fn a_segment_that_is_not_what_the_daemon_said_is_corrupt() {
    for (at, what) in [(8, "layout"), (120, "features")] {
        let mut channel = TestChannel::new(4096, geometry(4096));
        nix::sys::uio::pwrite(&channel.segment, &7u32.to_le_bytes(), at).unwrap();
        for error in
            [channel.try_reader(Start::New).unwrap_err().to_string(), channel.try_writer().unwrap_err().to_string()]
        {
            assert!(error.contains(&format!("{what} is 0x7, the daemon said")), "{error}");
        }
    }
}
