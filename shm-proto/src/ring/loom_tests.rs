//! Every interleaving, and every value that the memory model lets a load return, of the lock-free steps.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p shm-proto --release --lib`. What is checked is the code that runs, with
//! loom's atomics in place of the machine's; the semaphore is modelled by a mutex and a condition variable, and a
//! `membarrier` by what it stands for, a fence on both sides.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::commit::{self, Words};
use super::floor;
use super::published::{Place, Published, is_unchanged};
use super::record::{Header, Kind};
use super::wake::{self, Barrier};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A data area of a few words: every record is a header and one word of payload.
pub(super) struct Ring {
    words: Vec<AtomicU64>,
}

impl Ring {
    pub(super) fn new(words: usize) -> Ring {
        Ring { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(super) fn put(&self, off: u64, payload: u64) {
        self.word(off + 8).store(payload, Ordering::Relaxed);
    }

    pub(super) fn get(&self, off: u64) -> u64 {
        self.word(off + 8).load(Ordering::Relaxed)
    }
}

impl Words for Ring {
    fn word(&self, off: u64) -> &AtomicU64 {
        &self.words[(off / 8) as usize]
    }
}

#[derive(Default)]
struct Semaphore {
    value: Mutex<u32>,
    posted: Condvar,
}

impl Semaphore {
    fn post(&self) {
        *self.value.lock().unwrap() += 1;
        self.posted.notify_one();
    }

    /// For ever: a wake-up that got lost is a deadlock, which loom reports.
    fn wait(&self) {
        let mut value = self.value.lock().unwrap();
        while *value == 0 {
            value = self.posted.wait(value).unwrap();
        }
        *value -= 1;
    }
}

#[test]
fn who_sees_a_header_sees_its_payload_and_the_cleared_header_behind_it() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(6));
        // Old bytes where headers will be looked for.
        ring.word(16).store(u64::MAX, Ordering::Relaxed);
        ring.word(32).store(u64::MAX, Ordering::Relaxed);
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                for n in 0..2u64 {
                    ring.put(n * 16, 100 + n);
                    commit::commit(&*ring, n * 16, Header::data(8, n), n * 16 + 16);
                }
            })
        };
        for n in 0..3u64 {
            match commit::look(&*ring, n * 16).kind() {
                Kind::Empty => break,
                Kind::Data { len: 8 } => assert_eq!(ring.get(n * 16), 100 + n),
                other => panic!("{other:?}"),
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn who_sees_the_first_of_a_batch_sees_all_of_it() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(7));
        ring.word(16).store(u64::MAX, Ordering::Relaxed);
        ring.word(32).store(u64::MAX, Ordering::Relaxed);
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                ring.put(0, 100);
                commit::clear(&*ring, 16);
                ring.put(16, 101);
                commit::clear(&*ring, 32);
                commit::stage(&*ring, 16, Header::data(8, 1));
                commit::release(&*ring, 0, Header::data(8, 0));
            })
        };
        if commit::look(&*ring, 0).kind() != Kind::Empty {
            assert_eq!(ring.get(0), 100);
            assert_eq!(commit::look(&*ring, 16), Header::data(8, 1));
            assert_eq!(ring.get(16), 101);
            assert_eq!(commit::look(&*ring, 32).kind(), Kind::Empty);
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_jump_leads_to_a_cleared_header_or_a_whole_record() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(6));
        ring.word(0).store(u64::MAX, Ordering::Relaxed);
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                commit::commit(&*ring, 32, Header::jump(0, 5), 0);
                ring.put(0, 105);
                commit::commit(&*ring, 0, Header::data(8, 5), 16);
            })
        };
        if let Kind::Jump { target } = commit::look(&*ring, 32).kind() {
            match commit::look(&*ring, target).kind() {
                Kind::Empty => {}
                Kind::Data { len: 8 } => assert_eq!(ring.get(target), 105),
                other => panic!("{other:?}"),
            }
        }
        writer.join().unwrap();
    });
}

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
        let ring = Arc::new(Ring::new(4));
        let floor = Arc::new(Published::default());
        ring.put(0, 100);
        commit::commit(&*ring, 0, Header::data(8, 0), 16);
        let writer = {
            let (ring, floor) = (ring.clone(), floor.clone());
            thread::spawn(move || {
                floor.store(Place { pos: 16, off: 16, seq: 1, bytes: 8 });
                commit::clear(&*ring, 0);
                ring.put(0, 999);
            })
        };
        let header = commit::look(&*ring, 0);
        let payload = ring.get(0);
        if !floor.has_passed(0) {
            assert_eq!((header, payload), (Header::data(8, 0), 100));
        }
        writer.join().unwrap();
    });
}

#[test]
fn what_was_overwritten_after_an_eviction_is_noticed_by_the_bit() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(4));
        let floor = Arc::new(Published::default());
        let control = Arc::new(AtomicU32::new(1));
        ring.put(0, 100);
        commit::commit(&*ring, 0, Header::data(8, 0), 16);
        let writer = {
            let (ring, floor, control) = (ring.clone(), floor.clone(), control.clone());
            thread::spawn(move || {
                // Relaxed is enough: the fence that ends the floor's store makes the order.
                control.fetch_or(2, Ordering::Relaxed);
                floor.store(Place { pos: 16, off: 16, seq: 1, bytes: 8 });
                commit::clear(&*ring, 0);
                ring.put(0, 999);
            })
        };
        let header = commit::look(&*ring, 0);
        let payload = ring.get(0);
        if is_unchanged(&control, 2, 0) {
            assert_eq!((header, payload), (Header::data(8, 0), 100));
        }
        writer.join().unwrap();
    });
}

/// A record is under way, and may overwrite, while a reader attaches; from the registration on the floor is held.
#[test]
fn a_reader_that_sees_itself_registered_and_not_passed_need_not_look_at_the_floor_again() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(4));
        let floor = Arc::new(Published::default());
        let control = Arc::new(AtomicU32::new(0));
        ring.put(0, 100);
        commit::commit(&*ring, 0, Header::data(8, 0), 16);
        let writer = {
            let (ring, floor, control) = (ring.clone(), floor.clone(), control.clone());
            thread::spawn(move || {
                floor.store(Place { pos: 16, off: 16, seq: 1, bytes: 8 });
                ring.put(0, 999);
                control.fetch_or(1, Ordering::SeqCst);
            })
        };
        let registered = control.load(Ordering::Acquire) & 1 != 0;
        if registered {
            assert!(floor.has_passed(0));
        } else if !floor.has_passed(0) {
            // Not joined: what is read now is looked at again before it is believed.
            let payload = ring.get(0);
            assert!(payload == 100 || floor.has_passed(0));
        }
        writer.join().unwrap();
    });
}

#[test]
fn space_that_was_given_back_is_not_read_any_more() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(4));
        let (cursor, wanted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        ring.put(0, 100);
        let writer = {
            let (ring, cursor) = (ring.clone(), cursor.clone());
            thread::spawn(move || {
                if cursor.load(Ordering::Acquire) == 16 {
                    ring.put(0, 999);
                }
            })
        };
        assert_eq!(ring.get(0), 100);
        wake::publish_cursor(&cursor, &wanted, &AtomicU64::new(0), 16, 0);
        writer.join().unwrap();
    });
}

/// A reader that goes to sleep as the real one does, and a writer that wakes it as the real one does.
///
/// The first record is visible and unread. The writer first calls what `maintain` calls, which wakes nobody that has read
/// everything, and then publishes the second record.
fn sleep_and_wake(barrier: Barrier) {
    loom::model(move || {
        let ring = Arc::new(Ring::new(6));
        let (waiting, cursor) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
        let wake = Arc::new(Semaphore::default());
        commit::commit(&*ring, 0, Header::data(8, 0), 16);
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
                ring.put(16, 101);
                commit::commit(&*ring, 16, Header::data(8, 1), 32);
                rouse(32);
            })
        };
        assert_eq!(commit::look(&*ring, 0), Header::data(8, 0));
        wake::publish_cursor(&cursor, &AtomicU64::new(0), &AtomicU64::new(0), 16, 0);
        if commit::look(&*ring, 16).kind() == Kind::Empty {
            wake::arm(&waiting, 1, barrier);
            if commit::look(&*ring, 16).kind() == Kind::Empty {
                // A reader that is woken has something to read.
                wake.wait();
            }
            wake::disarm(&waiting);
        }
        assert_eq!(commit::look(&*ring, 16), Header::data(8, 1));
        assert_eq!(ring.get(16), 101);
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

/// The writer sees a reader at a cursor and asks for the next one. Whatever the reader is doing at that moment, it publishes a
/// later cursor, or finds the request when it passes its next record.
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

/// A writer that has to move the floor for its next record, and a reader that attaches meanwhile, as the real ones do. Without
/// `looks` the writer does not look at the generation once more.
fn attach_while_the_floor_moves(looks: bool) {
    loom::model(move || {
        let (floor, next_floor) = (Arc::new(Published::default()), Arc::new(Published::default()));
        let generation = Arc::new(AtomicU64::new(0));
        // Of the record at position 0.
        let payload = Arc::new(AtomicU64::new(100));
        let moved_to = Place { pos: 16, off: 16, seq: 1, bytes: 8 };
        let writer = {
            let (floor, next_floor) = (floor.clone(), next_floor.clone());
            let (generation, payload) = (generation.clone(), payload.clone());
            thread::spawn(move || {
                let never = AtomicU64::new(0);
                let generation = if looks { &*generation } else { &never };
                let places = (Place::default(), moved_to);
                if floor::advance(&next_floor, &floor, places, (generation, 0), Barrier::Symmetric) {
                    payload.store(999, Ordering::Relaxed);
                }
                // Otherwise it registers the reader, and holds the floor for it.
            })
        };
        // The daemon; its answer to the reader comes after this.
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

/// The model finds the fault that it is there for.
#[test]
#[should_panic(expected = "the reader would report a loss")]
fn without_the_second_look_a_reader_loses_what_it_starts_with() {
    attach_while_the_floor_moves(false);
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
