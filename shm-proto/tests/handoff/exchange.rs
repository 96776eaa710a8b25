//! Messages go through, in both directions, whole and in order, also while the segment changes its length.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shm_proto::internal::handoff::{Progress, Reader, Settings, Writer};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::os::named_sem::NamedSemaphore;
use shm_proto::{Blocked, HandoffError};

use shm_test_support::{Handoff, pattern, soon};

const LONG: Option<Duration> = Some(Duration::from_secs(60));

/// Publishes message number `number` and sees the peer check it.
fn check(writer: &mut Writer, reader: &mut shm_test_support::Peer, number: usize, len: usize) {
    assert_eq!(writer.publish(&pattern(number, len), LONG).unwrap(), Progress::Acknowledged);
    reader.says(&format!("{len} good"));
}

#[test]
fn a_reader_in_c_follows_growth_in_the_middle() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = Writer::create(place.settings()).unwrap();
    let mut reader = place.peer("read", &["8", "0"]);
    reader.says("open");
    // 4032 is the largest without growing, 0 is a message too; then once over, twice over, small again, at the brim.
    for (number, len) in [5, 4032, 0, 4033, 100_000, 7, 1 << 20, 256].into_iter().enumerate() {
        check(&mut writer, &mut reader, number, len);
    }
    reader.ends();
    assert_eq!(writer.counters().messages, 8);
    assert_eq!(writer.counters().resizes, 3);
    assert_eq!(writer.capacity(), 2 << 20);
    drop(writer);
    assert!(place.is_clean());
}

#[test]
fn a_reader_in_c_is_not_harmed_by_shrinking_and_growing_again() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = Writer::create(Settings { capacity: 1 << 20, ..place.settings() }).unwrap();
    let mut reader = place.peer("read", &["6", "0"]);
    reader.says("open");
    check(&mut writer, &mut reader, 0, 1_000_000);
    let shrunk = writer.resize(5000).unwrap();
    assert_eq!((shrunk.old, shrunk.new, shrunk.pending), (1 << 20, 8192, false));
    check(&mut writer, &mut reader, 1, 8128);
    check(&mut writer, &mut reader, 2, 9000);
    let grown = writer.resize(3 << 20).unwrap();
    assert_eq!((grown.old, grown.new, grown.pending), (16_384, 3 << 20, false));
    check(&mut writer, &mut reader, 3, 100);
    check(&mut writer, &mut reader, 4, 3_000_000);
    writer.resize(1).unwrap();
    check(&mut writer, &mut reader, 5, 4032);
    reader.ends();
}

#[test]
fn a_message_that_is_given_back_comes_to_another_reader() {
    let place = Handoff::new();
    let mut writer = Writer::create(Settings { ack_timeout: Duration::from_millis(20), ..place.settings() }).unwrap();
    let (mut first, mut bytes) = (Reader::new(place.0.clone()), Vec::new());
    writer.offer(b"one").unwrap();
    first.recv(&mut bytes, LONG).unwrap();
    first.give_back();
    // Neither of these acknowledges it.
    first.acknowledge();
    drop(first);
    while writer.counters().offered_again == 0 {
        assert_eq!(writer.progress(monotonic_ns() + 1_000_000_000).unwrap(), Progress::Waiting);
    }
    Reader::new(place.0.clone()).recv(&mut bytes, LONG).unwrap();
    assert_eq!(bytes, b"one");
    assert_eq!(writer.progress(monotonic_ns() + 60_000_000_000).unwrap(), Progress::Acknowledged);
}

#[test]
fn a_growth_while_a_message_is_on_offer_is_told_after_the_next_one() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = Writer::create(place.settings()).unwrap();
    let mut reader = place.peer("read", &["3", "0"]);
    reader.says("open");
    writer.offer(&pattern(0, 10)).unwrap();
    reader.says("10 good");
    // The reader has read with the old length; being told the new one now would send it past its mapping.
    writer.resize(1 << 20).unwrap();
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
    check(&mut writer, &mut reader, 1, 900_000);
    check(&mut writer, &mut reader, 2, 1_000_000);
    reader.ends();
}

#[test]
fn a_shrink_with_a_message_on_offer_waits_for_its_acknowledgement() {
    let place = Handoff::new();
    let mut writer = Writer::create(Settings { capacity: 1 << 20, ..place.settings() }).unwrap();
    let mut reader = Reader::new(place.0.clone());
    writer.offer(&pattern(0, 100_000)).unwrap();
    assert!(writer.resize(4096).unwrap().pending);
    assert_eq!(writer.capacity(), 1 << 20);
    let mut bytes = Vec::new();
    reader.recv(&mut bytes, LONG).unwrap();
    assert_eq!(bytes, pattern(0, 100_000));
    reader.acknowledge();
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
    assert_eq!(writer.capacity(), 4096);
}

#[test]
fn a_writer_in_c_is_read_through_its_growth_started_after_the_reader() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut reader = Reader::new(place.0.clone());
    let mut bytes = Vec::new();
    let error = reader.recv(&mut bytes, Some(Duration::from_millis(50))).unwrap_err();
    assert!(matches!(&error, HandoffError::TimedOut { what, .. } if what.contains("a writer")), "{error}");
    let sizes = [5, 4032, 0, 4033, 300_000, 256];
    let arguments: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    for _ in 0..3 {
        // The first one leaves its segment and makes the semaphores anew each time; this reader stays.
        let mut writer = place.peer("write", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        writer.says("open");
        for (number, len) in sizes.into_iter().enumerate() {
            let received = loop {
                match reader.recv(&mut bytes, LONG) {
                    Err(HandoffError::Closed { .. }) => {}
                    received => break received.unwrap(),
                }
            };
            assert!(!received.recovered);
            assert!(bytes == pattern(number, len), "message {number} of {len} bytes");
            reader.acknowledge();
            writer.says("acknowledged");
        }
        writer.ends();
    }
    assert_eq!(reader.received(), 18);
    assert!(matches!(reader.recv(&mut bytes, LONG), Err(HandoffError::Closed { .. })));
}

#[test]
fn sixty_four_megabytes_and_nothing_at_all_are_messages() {
    let place = Handoff::new();
    let mut writer = Writer::create(place.settings()).unwrap();
    let names = place.0.clone();
    let reading = std::thread::spawn(move || {
        let mut reader = Reader::new(names);
        let mut bytes = Vec::new();
        for (number, len) in [64 << 20, 0, 3].into_iter().enumerate() {
            assert_eq!(reader.recv(&mut bytes, LONG).unwrap().seq, number as u64);
            assert!(bytes == pattern(number, len), "message {number}");
        }
    });
    for (number, len) in [64 << 20, 0, 3].into_iter().enumerate() {
        assert_eq!(writer.publish(&pattern(number, len), LONG).unwrap(), Progress::Acknowledged);
    }
    reading.join().unwrap();
    assert_eq!(writer.capacity(), 128 << 20);
}

#[test]
fn a_message_over_the_limit_is_refused_with_both_numbers_and_the_next_one_goes_through() {
    let place = Handoff::new();
    let mut writer = Writer::create(Settings { max_capacity: 8192, ..place.settings() }).unwrap();
    let error = writer.offer(&[0; 8129]).unwrap_err();
    assert!(matches!(error, HandoffError::TooLarge { len: 8129, limit: 8128, .. }), "{error}");
    writer.offer(&[1; 8128]).unwrap();
    assert!(matches!(
        writer.offer(b"another"),
        Err(HandoffError::WouldBlock { reason: Blocked::Full { used: 8128, .. }, .. })
    ));
}

#[test]
fn without_a_reader_a_message_is_withdrawn_in_time_or_stays_on_offer() {
    let place = Handoff::new();
    let short = Duration::from_millis(20);
    let drops = Settings { drop_late: true, ack_timeout: short, ..place.settings() };
    let mut writer = Writer::create(drops).unwrap();
    assert_eq!(writer.publish(b"lost", None).unwrap(), Progress::Dropped);
    assert_eq!(writer.counters().dropped, 1);
    drop(writer);
    let mut writer = Writer::create(Settings { ack_timeout: short, ..place.settings() }).unwrap();
    assert!(matches!(writer.publish(b"late", Some(4 * short)), Err(HandoffError::TimedOut { .. })));
    assert_eq!((writer.counters().dropped, writer.counters().offered_again), (1, 0));
    assert_eq!(writer.publish(b"next", Some(Duration::ZERO)).unwrap_err().to_string().matches("timed out").count(), 1);
}

#[test]
fn a_wait_for_an_acknowledgement_can_be_ended_from_another_thread() {
    let place = Handoff::new();
    let mut writer = Writer::create(place.settings()).unwrap();
    writer.offer(b"x").unwrap();
    let waker = writer.waker();
    let other = std::thread::spawn(move || waker.wake());
    let until = soon();
    assert_eq!(writer.progress(until).unwrap(), Progress::Waiting);
    assert!(monotonic_ns() < until, "it was not ended, its time was up");
    other.join().unwrap();
    let mut reader = Reader::new(place.0.clone());
    reader.recv(&mut Vec::new(), LONG).unwrap();
    drop(reader);
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
    assert_eq!(writer.counters().stray_posts, 0);
}

#[test]
fn a_growth_is_broken_off_when_the_writer_is_to_end_and_takes_nothing() {
    let place = Handoff::new();
    let mut writer = Writer::create(place.settings()).unwrap();
    let capacity = writer.capacity();
    writer.waker().end();
    let error = writer.resize(128 << 20).unwrap_err();
    assert!(
        matches!(&error, HandoffError::NoSpace { reason, .. } if reason.contains("not wanted any more")),
        "{error}"
    );
    assert_eq!(writer.capacity(), capacity);
    assert_eq!(std::fs::metadata(format!("/dev/shm{}", place.0.segment)).unwrap().len(), capacity);
}

#[test]
fn a_flood_of_acknowledgements_that_belong_to_nothing_does_not_hold_a_deadline_up() {
    let place = Handoff::new();
    let settings = Settings { ack_timeout: Duration::from_millis(50), drop_late: true, ..place.settings() };
    let mut writer = Writer::create(settings).unwrap();
    let done = NamedSemaphore::open(&place.0.done).unwrap();
    let (over, begun) = (AtomicBool::new(false), Instant::now());
    let stopped_by_writer = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && begun.elapsed() < LONG.unwrap() {
                (0..1000).for_each(|_| done.post());
            }
            over.load(Ordering::Relaxed)
        });
        // On a busy machine the flood may come too late for the first message.
        while writer.counters().stray_posts == 0 && begun.elapsed() < LONG.unwrap() {
            assert_eq!(writer.publish(b"nobody reads this", None).unwrap(), Progress::Dropped);
        }
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    assert!(stopped_by_writer && writer.counters().stray_posts > 0);
}
