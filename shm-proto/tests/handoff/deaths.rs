//! Peers that die at every step, and peers that keep to nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use shm_proto::internal::handoff::layout::HEADER_SIZE;
use shm_proto::internal::handoff::{Entry, Journal, Progress, Reader, Settings, Stage, TakenUp, Writer};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::os::named_sem::NamedSemaphore;
use shm_proto::{HandoffError, SystemError};

use shm_test_support::{Handoff, in_child, pattern, soon};

const LONG: Option<Duration> = Some(Duration::from_secs(60));
const SHORT: Duration = Duration::from_millis(50);

/// Impatient with peers that have died.
fn writer(place: &Handoff) -> Writer {
    Writer::create(Settings { ack_timeout: SHORT, ..place.settings() }).unwrap()
}

/// Waits until the message on offer, of which a peer that has died knew, is offered again.
fn offered_again(writer: &mut Writer) {
    let end = soon();
    while writer.counters().offered_again == 0 {
        assert_eq!(writer.progress(monotonic_ns() + 5_000_000).unwrap(), Progress::Waiting);
        assert!(monotonic_ns() < end, "it is not offered again");
    }
}

/// Waits until the message on offer is acknowledged by a C reader that reads one message.
fn acknowledged_by_the_next(place: &Handoff, writer: &mut Writer, len: usize) {
    // Patient with one that lives, however slow the machine is.
    writer.set_policy(false, place.settings().ack_timeout);
    let mut next = place.peer("read", &["1", "0"]);
    next.says("open");
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
    next.says(&format!("{len} good"));
    next.ends();
}

#[test]
fn a_reader_killed_at_any_step_does_not_stop_the_writer_and_the_next_one_gets_the_message() {
    if !Handoff::has_peers() {
        return;
    }
    for (step, recovered) in [("claimed", 0), ("cleared", 0), ("locked", 1)] {
        let place = Handoff::new();
        let mut writer = writer(&place);
        writer.offer(&pattern(0, 100)).unwrap();
        let mut dies = place.peer("stop", &[step]);
        dies.says(step);
        dies.kill();
        offered_again(&mut writer);
        acknowledged_by_the_next(&place, &mut writer, 100);
        let counters = writer.counters();
        assert_eq!((counters.recovered, counters.messages), (recovered, 1), "{step}");
    }
}

#[test]
fn where_the_policy_is_to_drop_a_message_that_a_killed_reader_took_is_dropped_and_counted() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let drops = Settings { drop_late: true, ack_timeout: SHORT, ..place.settings() };
    let mut writer = Writer::create(drops).unwrap();
    writer.offer(&pattern(0, 100)).unwrap();
    let mut dies = place.peer("stop", &["locked"]);
    dies.says("locked");
    dies.kill();
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Dropped);
    assert_eq!((writer.counters().dropped, writer.counters().recovered), (1, 1));
}

#[test]
fn a_peer_killed_inside_the_mutex_or_during_its_recovery_is_recovered_before_the_next_message() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = writer(&place);
    for step in ["inside", "recovering"] {
        let mut dies = place.peer("stop", &[step]);
        dies.says(step);
        dies.kill();
    }
    writer.offer(&pattern(0, 9)).unwrap();
    assert_eq!(writer.counters().recovered, 1);
    acknowledged_by_the_next(&place, &mut writer, 9);
}

#[test]
fn a_reader_recovers_the_mutex_too_and_says_so() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = writer(&place);
    writer.offer(b"x").unwrap();
    let mut dies = place.peer("stop", &["inside"]);
    dies.says("inside");
    dies.kill();
    let mut reader = Reader::new(place.0.clone());
    assert!(reader.recv(&mut Vec::new(), LONG).unwrap().recovered);
    drop(reader);
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
}

#[test]
fn a_mutex_that_was_released_without_repair_is_made_anew_by_the_writer() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = writer(&place);
    let mut dies = place.peer("stop", &["inside"]);
    dies.says("inside");
    dies.kill();
    place.peer("careless", &[]).ends();
    writer.offer(&pattern(0, 9)).unwrap();
    assert_eq!(writer.counters().repaired, 1);
    acknowledged_by_the_next(&place, &mut writer, 9);
}

#[test]
fn a_living_peer_that_stays_in_the_mutex_is_named_and_waited_for_only_so_long() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = writer(&place);
    let mut stays = place.peer("stop", &["inside"]);
    stays.says("inside");
    let pid = stays.child.id().to_string();
    let error = writer.offer(b"x").unwrap_err();
    assert!(matches!(error, HandoffError::Locked { .. }) && error.to_string().contains(&pid), "{error}");
    stays.kill();
    writer.offer(b"x").unwrap();
}

#[test]
fn a_writer_in_c_killed_inside_its_mutex_ends_the_readers_wait_with_its_number() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut c_writer = place.peer("write", &["10", "10"]);
    c_writer.says("open");
    let mut reader = Reader::new(place.0.clone());
    reader.recv(&mut Vec::new(), LONG).unwrap();
    let mut stays = place.peer("stop", &["inside"]);
    stays.says("inside");
    let pid = stays.child.id().to_string();
    place.peer("post", &["avail", "1"]).ends();
    stays.kill();
    let error = reader.recv(&mut Vec::new(), LONG).unwrap_err();
    assert!(error.to_string().contains(&pid) && error.to_string().contains("gone"), "{error}");
}

#[test]
fn two_readers_share_the_messages_and_no_message_is_read_twice() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = Writer::create(place.settings()).unwrap();
    let names = place.0.clone();
    let ours = std::thread::spawn(move || {
        let (mut reader, mut bytes, mut seen) = (Reader::new(names), Vec::new(), Vec::new());
        while !matches!(reader.recv(&mut bytes, LONG), Err(HandoffError::Closed { .. })) {
            seen.push(bytes[0]);
        }
        seen
    });
    // Only now it is sure that this reader has opened the objects, which go at the end.
    let end = soon();
    writer.offer(&[0]).unwrap();
    while writer.progress(end).unwrap() == Progress::Waiting {
        assert!(monotonic_ns() < end, "the first message is not acknowledged");
    }
    // The other one claims a message and keeps it.
    let mut theirs = place.peer("stop", &["claimed"]);
    let claimed = std::thread::spawn(move || {
        theirs.says("claimed");
        theirs
    });
    'messages: for number in 1.. {
        writer.offer(&[number as u8]).unwrap();
        while writer.progress(monotonic_ns() + 5_000_000).unwrap() == Progress::Waiting {
            if claimed.is_finished() {
                break 'messages;
            }
            assert!(monotonic_ns() < end, "message {number} is neither acknowledged nor claimed");
        }
    }
    let read = writer.counters().messages;
    drop(claimed.join().unwrap());
    drop(writer);
    let seen = ours.join().unwrap();
    assert_eq!(seen, (0..read).map(|number| number as u8).collect::<Vec<_>>());
}

#[test]
fn posts_that_belong_to_no_message_acknowledge_nothing_and_wake_nobody_for_long() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let mut writer = Writer::create(place.settings()).unwrap();
    place.peer("post", &["done", "1000"]).ends();
    place.peer("post", &["avail", "1000"]).ends();
    let mut reader = Reader::new(place.0.clone());
    assert_eq!(reader.recv_until(&mut Vec::new(), monotonic_ns() + 50_000_000).unwrap(), None);
    assert_eq!(reader.stray_posts(), 1000);
    place.peer("post", &["avail", "7"]).ends();
    writer.offer(b"x").unwrap();
    assert_eq!(writer.counters().stray_posts, 1007);
    place.peer("post", &["done", "1"]).ends();
    assert_eq!(writer.progress(monotonic_ns() + 50_000_000).unwrap(), Progress::Waiting);
    assert_eq!(writer.counters().stray_posts, 1008);
    let mut bytes = Vec::new();
    reader.recv(&mut bytes, LONG).unwrap();
    assert_eq!(bytes, b"x");
    reader.acknowledge();
    assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
}

#[test]
fn a_reader_in_c_that_a_killed_writer_did_not_wake_any_more_gets_its_message() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let settings = Settings { keep_offer: true, ..place.settings() };
    assert_eq!(in_child(|| Writer::create(settings.clone()).map(std::mem::forget).is_err().into()).exit_code(), 0);
    let mut reader = place.peer("read", &["1", "0"]);
    reader.says("open");
    place.await_sleeper();
    // As far as a writer has come that is killed in the middle of its post: it has added to the value, and woken nobody.
    let [segment, avail, _] = place.paths().map(|path| File::options().write(true).open(path).unwrap());
    segment.write_all_at(&5_u64.to_ne_bytes(), HEADER_SIZE - 16).unwrap();
    segment.write_all_at(&pattern(0, 5), HEADER_SIZE - 4).unwrap();
    segment.write_all_at(&1_u32.to_ne_bytes(), HEADER_SIZE - 8).unwrap();
    avail.write_all_at(&1_u32.to_ne_bytes(), 0).unwrap();
    let mut next = Writer::create(settings).unwrap();
    assert_eq!(next.take_up().unwrap(), TakenUp::Other);
    reader.says("5 good");
    assert_eq!(next.progress(soon()).unwrap(), Progress::Acknowledged);
    reader.ends();
}

/// Keeps no notes.
#[derive(Debug)]
struct Forgets;

impl Journal for Forgets {
    fn note(&mut self, _: &Entry) -> Result<(), SystemError> {
        Ok(())
    }
}

#[test]
fn readers_are_not_told_of_a_growth_that_the_reader_of_a_dead_writers_message_may_not_have_seen() {
    let place = Handoff::new();
    let settings = Settings { keep_offer: true, capacity: 4096, ..place.settings() };
    let grows_and_dies = || {
        let mut writer = Writer::create(settings.clone())?;
        let mut reader = Reader::new(place.0.clone());
        writer.offer(b"taken")?;
        reader.recv(&mut Vec::new(), LONG)?;
        writer.resize(64 << 10)?;
        std::mem::forget((writer, reader));
        Ok::<(), HandoffError>(())
    };
    assert_eq!(in_child(|| grows_and_dies().is_err().into()).exit_code(), 0);
    let told = || {
        let mut capacity = [0; 8];
        File::open(&place.paths()[0]).unwrap().read_exact_at(&mut capacity, HEADER_SIZE - 24).unwrap();
        u64::from_ne_bytes(capacity)
    };
    let mut next = Writer::create(settings.clone()).unwrap();
    next.keep_journal(Box::new(Forgets), Entry { stage: Stage::Offered(*b"take"), ..Entry::default() });
    assert_eq!((next.take_up().unwrap(), next.capacity(), told()), (TakenUp::Noted, 64 << 10, 4096));
    NamedSemaphore::open(&place.0.done).unwrap().post();
    assert_eq!(next.progress(soon()).unwrap(), Progress::Acknowledged);
    assert_eq!(told(), 4096);
    // The reader of the next message has seen all of it.
    let mut reader = Reader::new(place.0.clone());
    next.offer(b"next").unwrap();
    reader.recv(&mut Vec::new(), LONG).unwrap();
    reader.acknowledge();
    assert_eq!(next.progress(soon()).unwrap(), Progress::Acknowledged);
    assert_eq!((told(), next.counters().offered_again), (64 << 10, 0));
}

#[test]
fn a_length_that_the_segment_cannot_hold_is_an_error_with_both_numbers() {
    if !Handoff::has_peers() {
        return;
    }
    let place = Handoff::new();
    let _writer = Writer::create(place.settings()).unwrap();
    place.peer("lie", &[]).ends();
    let error = Reader::new(place.0.clone()).recv(&mut Vec::new(), LONG).unwrap_err();
    assert!(error.to_string().contains("18446744073709551615") && error.to_string().contains("4036"), "{error}");
}
