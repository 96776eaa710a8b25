//! Records that are overwritten while a reader reads them or attaches.

use loom::sync::Arc;
use loom::thread;

use super::Ring;
use crate::ring::published::{Place, Published, is_unchanged};
use crate::ring::record::Header;
use crate::ring::wake::{self, Barrier};
use crate::ring::{commit, floor};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

fn place(n: u64) -> Place {
    Place { pos: n, off: n * 10, seq: n * 100, bytes: n * 1000 }
}

#[test]
fn a_published_place_is_never_a_mixture() {
    loom::model(|| {
        let published = Arc::new(Published::default());
        let writer = {
            let published = published.clone();
            thread::spawn(move || {
                for n in 1..=3 {
                    published.store(place(n));
                }
            })
        };
        if let Some(seen) = published.try_load() {
            assert_eq!(seen, place(seen.pos));
        }
        writer.join().unwrap();
    });
}

#[test]
fn what_was_overwritten_while_it_was_read_is_noticed_by_the_floor() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(5));
        let floor = Arc::new(Published::default());
        ring.put(8, 100);
        commit::commit(&*ring, 8, Header::data(8, 0), 24);
        let writer = {
            let (ring, floor) = (ring.clone(), floor.clone());
            thread::spawn(move || {
                floor.store(Place { pos: 16, off: 24, seq: 1, bytes: 8 });
                commit::clear(&*ring, 8);
                ring.put(8, 999);
            })
        };
        let header = commit::look(&*ring, 8);
        let payload = ring.get(8);
        if !floor.has_passed(0) {
            assert_eq!((header, payload), (Header::data(8, 0), 100));
        }
        writer.join().unwrap();
    });
}

#[test]
fn what_was_overwritten_after_an_eviction_is_noticed_by_the_bit() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(5));
        let floor = Arc::new(Published::default());
        let control = Arc::new(AtomicU32::new(1));
        ring.put(8, 100);
        commit::commit(&*ring, 8, Header::data(8, 0), 24);
        let writer = {
            let (ring, floor, control) = (ring.clone(), floor.clone(), control.clone());
            thread::spawn(move || {
                // Relaxed is enough: the fence that ends the floor's store provides the order.
                control.fetch_or(2, Ordering::Relaxed);
                floor.store(Place { pos: 16, off: 24, seq: 1, bytes: 8 });
                commit::clear(&*ring, 8);
                ring.put(8, 999);
            })
        };
        let header = commit::look(&*ring, 8);
        let payload = ring.get(8);
        if is_unchanged(&control, 2, 0) {
            assert_eq!((header, payload), (Header::data(8, 0), 100));
        }
        writer.join().unwrap();
    });
}

/// A record in progress may overwrite old records while a reader attaches. From the registration on, the floor is held.
#[test]
fn a_reader_that_sees_itself_registered_and_not_passed_need_not_look_at_the_floor_again() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(5));
        let floor = Arc::new(Published::default());
        let control = Arc::new(AtomicU32::new(0));
        ring.put(8, 100);
        commit::commit(&*ring, 8, Header::data(8, 0), 24);
        let writer = {
            let (ring, floor, control) = (ring.clone(), floor.clone(), control.clone());
            thread::spawn(move || {
                floor.store(Place { pos: 16, off: 24, seq: 1, bytes: 8 });
                ring.put(8, 999);
                control.fetch_or(1, Ordering::SeqCst);
            })
        };
        let registered = control.load(Ordering::Acquire) & 1 != 0;
        if registered {
            assert!(floor.has_passed(0));
        } else if !floor.has_passed(0) {
            // Not joined, so what is read now is checked again before it is used.
            let payload = ring.get(8);
            assert!(payload == 100 || floor.has_passed(0));
        }
        writer.join().unwrap();
    });
}

#[test]
fn space_that_was_given_back_is_not_read_any_more() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(5));
        let (cursor, wanted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        ring.put(8, 100);
        let writer = {
            let (ring, cursor) = (ring.clone(), cursor.clone());
            thread::spawn(move || {
                if cursor.load(Ordering::Acquire) == 16 {
                    ring.put(8, 999);
                }
            })
        };
        assert_eq!(ring.get(8), 100);
        wake::publish_cursor(&cursor, &wanted, &AtomicU64::new(0), 16, 0);
        writer.join().unwrap();
    });
}

/// A writer that must move the floor for its next record, and a reader that attaches in the meantime, as the real ones
/// do. Without `looks`, the writer does not look at the generation once more.
fn attach_while_the_floor_moves(looks: bool) {
    loom::model(move || {
        let (floor, next_floor) = (Arc::new(Published::default()), Arc::new(Published::default()));
        let generation = Arc::new(AtomicU64::new(0));
        // The payload of the record at position 0.
        let payload = Arc::new(AtomicU64::new(100));
        let moved_to = Place { pos: 16, off: 24, seq: 1, bytes: 8 };
        let writer = {
            let (floor, next_floor) = (floor.clone(), next_floor.clone());
            let (generation, payload) = (generation.clone(), payload.clone());
            thread::spawn(move || {
                let never = AtomicU64::new(0);
                let generation = if looks { &*generation } else { &never };
                let places = (Place::default(), moved_to);
                if floor::advance(
                    &next_floor,
                    &floor,
                    places,
                    || generation.load(Ordering::Acquire) != 0,
                    Barrier::Symmetric,
                ) {
                    payload.store(999, Ordering::Relaxed);
                }
                // Otherwise, the writer registers the reader, and holds the floor for it.
            })
        };
        // The daemon, whose answer to the reader comes after this.
        generation.store(1, Ordering::SeqCst);
        Barrier::Symmetric.heavy();
        // The reader: the records from its start on are whole, and stay whole.
        if let Some(start) = next_floor.try_load() {
            assert!(start.pos == 0 || start == moved_to);
            let payload = payload.load(Ordering::Relaxed);
            writer.join().unwrap();
            assert!(!floor.has_passed(start.pos), "the reader would report a loss");
            assert!(start.pos > 0 || payload == 100);
        }
    });
}

#[test]
fn nothing_that_a_reader_starts_with_is_overwritten() {
    attach_while_the_floor_moves(true);
}

/// The model finds the fault that it exists for.
#[test]
#[should_panic(expected = "the reader would report a loss")]
fn without_the_second_look_a_reader_loses_what_it_starts_with() {
    attach_while_the_floor_moves(false);
}
