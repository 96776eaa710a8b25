//! The faults that the models exist for: each is planted in a copy of one side, and the model must find it.
//!
//! A model that passes proves nothing if it also passes with the fault.

use loom::sync::Arc;
use loom::thread;

use super::Ring;
use crate::ring::commit::{self, Words};
use crate::ring::published::{Place, Published};
use crate::ring::record::{Header, Kind};
use crate::ring::wake::{self, Barrier};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Runs one side in a thread, and the other side in this thread.
fn both<T: Send + Sync + 'static>(make: impl Fn() -> T + Send + Sync + 'static, theirs: fn(&T), ours: fn(&T)) {
    both_and_then(make, theirs, ours, |_| ());
}

/// The same, and then checks the result.
fn both_and_then<T: Send + Sync + 'static>(
    make: impl Fn() -> T + Send + Sync + 'static,
    theirs: fn(&T),
    ours: fn(&T),
    look: fn(&T),
) {
    loom::model(move || {
        let shared = Arc::new(make());
        let other = shared.clone();
        let other = thread::spawn(move || theirs(&other));
        ours(&shared);
        other.join().unwrap();
        look(&shared);
    });
}

#[test]
#[should_panic(expected = "an old payload")]
fn a_header_that_is_stored_without_release() {
    both(
        || Ring::new(4),
        |ring| {
            ring.put(0, 100);
            commit::clear(ring, 16);
            commit::stage(ring, 0, Header::data(8, 0));
        },
        |ring| {
            if commit::look(ring, 0).kind() != Kind::Empty {
                assert_eq!(ring.get(0), 100, "an old payload");
            }
        },
    );
}

#[test]
#[should_panic(expected = "old bytes for a header")]
fn a_record_that_is_visible_before_the_place_behind_it_is_cleared() {
    both(
        || {
            let ring = Ring::new(4);
            ring.word(16).store(u64::MAX, Ordering::Relaxed);
            ring
        },
        |ring| {
            ring.put(0, 100);
            commit::release(ring, 0, Header::data(8, 0));
            commit::clear(ring, 16);
        },
        |ring| {
            if commit::look(ring, 0).kind() != Kind::Empty {
                assert!(commit::look(ring, 16).kind() == Kind::Empty, "old bytes for a header");
            }
        },
    );
}

#[test]
#[should_panic(expected = "the batch has no second record")]
fn a_batch_whose_first_record_is_visible_before_the_second_is_staged() {
    both(
        || Ring::new(6),
        |ring| {
            ring.put(0, 100);
            commit::clear(ring, 16);
            commit::release(ring, 0, Header::data(8, 0));
            ring.put(16, 101);
            commit::stage(ring, 16, Header::data(8, 1));
        },
        |ring| {
            if commit::look(ring, 0).kind() != Kind::Empty {
                assert_eq!(commit::look(ring, 16), Header::data(8, 1), "the batch has no second record");
            }
        },
    );
}

#[test]
#[should_panic(expected = "the jump leads to old bytes")]
fn a_jump_that_is_visible_before_its_target_is_cleared() {
    both(
        || {
            let ring = Ring::new(7);
            ring.word(8).store(u64::MAX, Ordering::Relaxed);
            ring
        },
        |ring| {
            commit::release(ring, 40, Header::jump(8, 5));
            commit::clear(ring, 8);
        },
        |ring| {
            if let Kind::Jump { target } = commit::look(ring, 40).kind() {
                assert!(commit::look(ring, target).kind() == Kind::Empty, "the jump leads to old bytes");
            }
        },
    );
}

/// What goes to sleep and what wakes it. No thread really sleeps here: the model checks at the end whether a post is
/// missing.
#[derive(Default)]
struct Sleep {
    word: AtomicU64,
    waiting: AtomicU32,
    asleep: AtomicU32,
    posted: AtomicU32,
}

impl Sleep {
    fn rouse(&self) {
        if self.waiting.load(Ordering::Acquire) != 0 && wake::take(&self.waiting) != 0 {
            self.posted.store(1, Ordering::Relaxed);
        }
    }

    fn sleep(&self) {
        self.asleep.store(1, Ordering::Relaxed);
    }

    fn check(&self) {
        let posted = self.posted.load(Ordering::Relaxed);
        assert!(self.asleep.load(Ordering::Relaxed) <= posted, "it sleeps for ever");
    }
}

#[test]
#[should_panic(expected = "it sleeps for ever")]
fn a_writer_without_a_barrier_before_it_looks_for_sleepers() {
    both_and_then(
        Sleep::default,
        |sleep| {
            sleep.word.store(1, Ordering::Release);
            sleep.rouse();
        },
        |sleep| {
            wake::arm(&sleep.waiting, 1, Barrier::Symmetric);
            if sleep.word.load(Ordering::Relaxed) == 0 {
                sleep.sleep();
            }
        },
        Sleep::check,
    );
}

#[test]
#[should_panic(expected = "it sleeps for ever")]
fn a_reader_that_does_not_look_again_before_it_sleeps() {
    both_and_then(
        Sleep::default,
        |sleep| {
            sleep.word.store(1, Ordering::Release);
            Barrier::Symmetric.light();
            sleep.rouse();
        },
        |sleep| {
            if sleep.word.load(Ordering::Relaxed) == 0 {
                wake::arm(&sleep.waiting, 1, Barrier::Symmetric);
                sleep.sleep();
            }
        },
        Sleep::check,
    );
}

#[test]
#[should_panic(expected = "it sleeps for ever")]
fn a_writer_that_looks_at_the_cursor_before_it_says_what_it_waits_for() {
    both_and_then(
        || (AtomicU64::new(0), AtomicU64::new(0), Sleep::default()),
        |(cursor, wanted, space)| {
            if wake::publish_cursor(cursor, wanted, &AtomicU64::new(0), 16, 0) {
                space.posted.store(1, Ordering::Relaxed);
            }
        },
        |(cursor, wanted, space)| {
            if cursor.load(Ordering::Acquire) < 16 {
                wanted.store(16, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                space.sleep();
            }
        },
        |(_, _, space)| space.check(),
    );
}

#[test]
#[should_panic(expected = "a mixture")]
fn a_place_whose_version_is_stored_before_its_copy() {
    both(
        Published::default,
        |published| {
            for n in 1..=2u64 {
                published.version.store(n, Ordering::Release);
                let copy = &published.copies[(n & 1) as usize];
                copy.pos.store(n, Ordering::Relaxed);
                copy.seq.store(n * 100, Ordering::Relaxed);
                fence(Ordering::Release);
            }
        },
        |published| {
            if let Some(place) = published.try_load() {
                assert_eq!(place.seq, place.pos * 100, "a mixture");
            }
        },
    );
}

/// A record at position 0, and the floor that says whether the record is still there.
struct Lapped {
    ring: Ring,
    floor: Published,
    control: AtomicU32,
}

impl Lapped {
    fn new() -> Self {
        let lapped = Lapped { ring: Ring::new(4), floor: Published::default(), control: AtomicU32::new(0) };
        lapped.ring.put(0, 100);
        commit::commit(&lapped.ring, 0, Header::data(8, 0), 16);
        lapped
    }

    fn pass(&self) {
        self.floor.store(Place { pos: 16, off: 16, seq: 1, bytes: 8 });
    }
}

#[test]
#[should_panic(expected = "overwritten bytes are believed")]
fn a_floor_that_moves_after_what_is_below_it_is_overwritten() {
    both(
        Lapped::new,
        |lapped| {
            lapped.ring.put(0, 999);
            lapped.pass();
        },
        |lapped| {
            let payload = lapped.ring.get(0);
            if !lapped.floor.has_passed(0) {
                assert_eq!(payload, 100, "overwritten bytes are believed");
            }
        },
    );
}

#[test]
#[should_panic(expected = "overwritten bytes are believed")]
fn an_eviction_that_is_told_after_the_evicted_readers_space_is_used() {
    both(
        Lapped::new,
        |lapped| {
            lapped.pass();
            lapped.ring.put(0, 999);
            lapped.control.fetch_or(2, Ordering::SeqCst);
        },
        |lapped| {
            let payload = lapped.ring.get(0);
            if crate::ring::published::is_unchanged(&lapped.control, 2, 0) {
                assert_eq!(payload, 100, "overwritten bytes are believed");
            }
        },
    );
}

#[test]
#[should_panic(expected = "read after it was given back")]
fn a_cursor_that_is_published_before_the_message_is_read() {
    both(
        || (Ring::new(4), AtomicU64::new(0)),
        |(ring, cursor)| {
            if cursor.load(Ordering::Acquire) == 16 {
                ring.put(0, 999);
            }
        },
        |(ring, cursor)| {
            wake::publish_cursor(cursor, &AtomicU64::new(0), &AtomicU64::new(0), 16, 0);
            assert_eq!(ring.get(0), 0, "read after it was given back");
        },
    );
}
