//! No side sleeps through the event that it waits for.

use loom::sync::Arc;
use loom::thread;

use super::{Ring, Semaphore};
use crate::ring::commit;
use crate::ring::record::{Header, Kind};
use crate::ring::wake::{self, Barrier};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A reader that goes to sleep and a writer that wakes it, both as the real ones do.
///
/// The first record is visible and unread. The writer first calls what `maintain` calls, which wakes no reader that has
/// read everything, and then publishes the second record.
fn sleep_and_wake(barrier: Barrier) {
    loom::model(move || {
        let ring = Arc::new(Ring::new(7));
        let (waiting, cursor) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
        let wake = Arc::new(Semaphore::default());
        commit::commit(&*ring, 8, Header::data(8, 0), 24);
        let writer = {
            let (ring, waiting, cursor, wake) = (ring.clone(), waiting.clone(), cursor.clone(), wake.clone());
            thread::spawn(move || {
                let rouse = |tail| {
                    barrier.light();
                    if wake::sleeps_before(&waiting, &cursor, tail) && wake::take(&waiting) != 0 {
                        wake.post();
                    }
                };
                rouse(16);
                ring.put(24, 101);
                commit::commit(&*ring, 24, Header::data(8, 1), 40);
                rouse(32);
            })
        };
        assert_eq!(commit::look(&*ring, 8), Header::data(8, 0));
        wake::publish_cursor(&cursor, &AtomicU64::new(0), &AtomicU64::new(0), 16, 0);
        if commit::look(&*ring, 24).kind() == Kind::Empty {
            wake::arm(&waiting, 1, barrier);
            if commit::look(&*ring, 24).kind() == Kind::Empty {
                // A reader that is woken has something to read.
                wake.wait();
            }
            wake::disarm(&waiting);
        }
        assert_eq!(commit::look(&*ring, 24), Header::data(8, 1));
        assert_eq!(ring.get(24), 101);
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_never_sleeps_through_a_message_with_a_fence_on_both_sides() {
    sleep_and_wake(Barrier::Symmetric);
}

#[test]
fn a_reader_never_sleeps_through_a_message_with_the_barrier_on_its_side() {
    sleep_and_wake(Barrier::Asymmetric);
}

/// The writer sees a reader at a cursor and asks for the next one. Whatever the reader is doing at that moment, it
/// publishes a later cursor, or finds the request when it passes its next record.
#[test]
fn a_reader_that_is_asked_shows_the_next_record_that_it_passes() {
    loom::model(|| {
        let (cursor, give_at) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(8)));
        let reader = {
            let (cursor, give_at) = (cursor.clone(), give_at.clone());
            thread::spawn(move || {
                for off in [8, 16] {
                    if off >= give_at.load(Ordering::Relaxed) {
                        wake::publish_cursor(&cursor, &AtomicU64::new(0), &give_at, off, 1000);
                    }
                }
            })
        };
        let seen = cursor.load(Ordering::Acquire);
        wake::ask_for_cursor(&give_at);
        reader.join().unwrap();
        assert!(give_at.load(Ordering::Relaxed) == 0 || cursor.load(Ordering::Acquire) > seen);
    });
}

#[test]
fn a_writer_never_sleeps_through_space() {
    loom::model(|| {
        let (cursor, wanted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let space = Arc::new(Semaphore::default());
        let reader = {
            let (cursor, wanted, space) = (cursor.clone(), wanted.clone(), space.clone());
            thread::spawn(move || {
                for pos in [8, 16] {
                    if wake::publish_cursor(&cursor, &wanted, &AtomicU64::new(0), pos, 0) {
                        space.post();
                    }
                }
            })
        };
        if !wake::want_space(&wanted, &cursor, 16) {
            space.wait();
        }
        assert!(cursor.load(Ordering::Acquire) >= 16);
        reader.join().unwrap();
    });
}
