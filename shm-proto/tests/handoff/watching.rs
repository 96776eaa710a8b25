//! A reader that sleeps in a poll loop, on a descriptor.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use shm_proto::HandoffError;
use shm_proto::internal::handoff::{Progress, Reader, SignOfLife, Writer};
use shm_proto::internal::os::clock;
use shm_proto::internal::os::named_sem::{self, NamedSemaphore};
use shm_proto::internal::os::poll;
use shm_proto::internal::os::sem::Wait;

use shm_test_support::{Handoff, PATIENCE, pattern, soon, wait_until};

fn nothing() -> SignOfLife {
    Arc::new(|| ())
}

fn is_readable(reader: &mut Reader, patience: Duration) -> bool {
    poll::readable(reader.descriptor().unwrap(), Some(patience)).unwrap()
}

/// Waits until the descriptor is readable.
#[track_caller]
fn await_readable(reader: &mut Reader) {
    assert!(is_readable(reader, PATIENCE), "nothing has woken the reader");
}

/// The number of threads that sleep on `avail`.
fn sleepers(place: &Handoff) -> u32 {
    let cell = fs::read(named_sem::path(&place.0.avail)).unwrap();
    u32::from_ne_bytes(cell[4..8].try_into().unwrap())
}

#[test]
fn a_message_makes_the_descriptor_readable_and_stays_on_offer() {
    let (place, sign) = (Handoff::new(), nothing());
    let mut writer = Writer::create(place.settings()).unwrap();
    let mut reader = Reader::new(place.0.clone());
    let avail = NamedSemaphore::open(&place.0.avail).unwrap();
    let mut bytes = Vec::new();
    for n in 0..20 {
        assert!(reader.arm(&sign).unwrap());
        assert!(!is_readable(&mut reader, Duration::ZERO));
        // With and without a thread that sleeps.
        if n % 2 == 0 {
            place.await_sleeper();
        }
        writer.offer(&pattern(n, 100)).unwrap();
        await_readable(&mut reader);
        assert_eq!(avail.value(), 1, "the watch takes nothing");
        assert!(!reader.arm(&sign).unwrap(), "the program has to receive first");
        assert!(is_readable(&mut reader, Duration::ZERO), "it stays readable");
        assert!(reader.recv_until(&mut bytes, 0).unwrap().is_some());
        assert_eq!(bytes, pattern(n, 100));
        reader.acknowledge();
        assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
    }
    assert_eq!((reader.received(), reader.stray_posts()), (20, 0));
}

#[test]
fn a_post_that_wakes_the_watch_reaches_another_reader() {
    let (place, sign) = (Handoff::new(), nothing());
    let _writer = Writer::create(place.settings()).unwrap();
    let mut reader = Reader::new(place.0.clone());
    let avail = NamedSemaphore::open(&place.0.avail).unwrap();
    // The kernel wakes the thread that has slept longest. The watch begins a new sleep from time to time: so more than once.
    for round in 0..20 {
        // It may still be about to tell of the round before.
        wait_until("the watch sleeps", || reader.arm(&sign).unwrap() && sleepers(&place) == 1);
        thread::scope(|scope| {
            let other = scope.spawn(|| avail.wait_until(clock::after(PATIENCE)));
            wait_until("both sleep", || sleepers(&place) == 2);
            avail.post();
            assert_eq!(other.join().unwrap(), Wait::Posted, "in round {round}, a reader sleeps beside a message");
        });
        assert_eq!(avail.value(), 0);
    }
}

#[test]
fn a_reader_is_told_of_objects_that_come_go_and_come_again() {
    let (place, sign) = (Handoff::new(), nothing());
    let mut reader = Reader::new(place.0.clone());
    let mut bytes = Vec::new();
    for n in 0..2 {
        assert!(reader.arm(&sign).unwrap());
        assert!(!is_readable(&mut reader, Duration::ZERO));
        let mut writer = Writer::create(place.settings()).unwrap();
        await_readable(&mut reader);
        wait_until("the objects are open", || {
            assert!(reader.recv_until(&mut bytes, 0).unwrap().is_none());
            reader.arm(&sign).unwrap() && sleepers(&place) == 1
        });
        writer.offer(&pattern(n, 10)).unwrap();
        await_readable(&mut reader);
        assert!(reader.recv_until(&mut bytes, 0).unwrap().is_some());
        assert!(reader.arm(&sign).unwrap(), "this acknowledges the message");
        assert_eq!(writer.progress(soon()).unwrap(), Progress::Acknowledged);
        drop(writer);
        await_readable(&mut reader);
        assert!(matches!(reader.recv_until(&mut bytes, 0), Err(HandoffError::Closed { .. })));
    }
}

#[test]
fn a_sleeping_reader_shows_signs_of_life_and_one_that_was_told_does_not() {
    let place = Handoff::new();
    let signs = Arc::new(AtomicU64::new(0));
    let sign: SignOfLife = {
        let signs = Arc::clone(&signs);
        Arc::new(move || {
            signs.fetch_add(1, Ordering::SeqCst);
        })
    };
    let mut writer = Writer::create(place.settings()).unwrap();
    let mut reader = Reader::new(place.0.clone());
    assert!(reader.arm(&sign).unwrap());
    wait_until("there are signs of life", || signs.load(Ordering::SeqCst) >= 3);
    writer.offer(b"a").unwrap();
    await_readable(&mut reader);
    let told = signs.load(Ordering::SeqCst);
    // The program has a message and does not come.
    thread::sleep(Duration::from_millis(600));
    assert_eq!(signs.load(Ordering::SeqCst), told);
    assert!(reader.recv_until(&mut Vec::new(), 0).unwrap().is_some());
    assert!(reader.arm(&sign).unwrap());
    wait_until("there are signs of life again", || signs.load(Ordering::SeqCst) > told);
    // A sleeping watch ends with its reader, and lets go of everything.
    place.await_sleeper();
    drop(reader);
    assert_eq!((Arc::strong_count(&sign), sleepers(&place)), (1, 0));
}
