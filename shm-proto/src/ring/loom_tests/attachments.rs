//! Peers that come, leave, and come back after the daemon's death, and what happens to memory in the meantime.

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::Ring;
use crate::ring::commit;
use crate::ring::floor;
use crate::ring::published::{Place, Published};
use crate::ring::record::{Header, Kind};
use crate::ring::wake::{self, Barrier};
use crate::sync::{AtomicU64, Ordering, fence};

/// What a reader that has left shows instead of its process: `PID_LEFT` of the layout.
const PID_LEFT: u64 = u64::MAX;
/// A place behind the first record.
const BEHIND: Place = Place { pos: 16, off: 16, seq: 1, bytes: 8 };

/// A reader that says it has left has read everything that it was going to read.
fn leave(fault: bool) {
    loom::model(move || {
        let (ring, pid) = (Arc::new(Ring::new(4)), Arc::new(AtomicU64::new(7)));
        ring.put(0, 100);
        let writer = {
            let (ring, pid) = (ring.clone(), pid.clone());
            thread::spawn(move || {
                // As `Peers` looks at a page while there is no daemon.
                if pid.load(Ordering::Acquire) == PID_LEFT {
                    ring.put(0, 999);
                }
            })
        };
        if fault {
            pid.store(PID_LEFT, Ordering::Release);
        }
        assert_eq!(ring.get(0), 100, "it was still reading");
        if !fault {
            pid.store(PID_LEFT, Ordering::Release);
        }
        writer.join().unwrap();
    });
}

#[test]
fn the_space_of_a_reader_that_left_is_not_read_any_more() {
    leave(false);
}

#[test]
#[should_panic(expected = "it was still reading")]
fn a_reader_that_says_it_left_before_it_has_is_found() {
    leave(true);
}

/// Memory that exists before the writer is told of it also exists for a reader of what the writer puts into it.
fn grow(fault: bool) {
    loom::model(move || {
        let (ring, memory) = (Arc::new(Ring::new(6)), Arc::new(AtomicU64::new(0)));
        let line = Arc::new(Mutex::new(false));
        let daemon = {
            let (memory, line) = (memory.clone(), line.clone());
            thread::spawn(move || {
                if fault {
                    *line.lock().unwrap() = true;
                }
                memory.store(1, Ordering::Relaxed);
                *line.lock().unwrap() = true;
            })
        };
        let writer = {
            let (ring, line) = (ring.clone(), line.clone());
            thread::spawn(move || {
                if *line.lock().unwrap() {
                    ring.put(16, 101);
                    commit::commit(&*ring, 16, Header::data(8, 1), 32);
                }
            })
        };
        if commit::look(&*ring, 16).kind() != Kind::Empty {
            assert_eq!(memory.load(Ordering::Relaxed), 1, "there is no memory behind it");
        }
        writer.join().unwrap();
        daemon.join().unwrap();
    });
}

#[test]
fn what_is_read_above_the_old_size_has_memory() {
    grow(false);
}

#[test]
#[should_panic(expected = "there is no memory behind it")]
fn a_size_that_is_told_before_there_is_memory_is_found() {
    grow(true);
}

/// A shrink: the writer jumps back, the reader follows and gives back the space above, and only then is the memory
/// removed.
fn shrink(fault: bool) {
    loom::model(move || {
        let ring = Arc::new(Ring::new(7));
        let cursor = Arc::new(AtomicU64::new(0));
        // The record above the new size, which no reader has read.
        ring.put(24, 101);
        commit::commit(&*ring, 24, Header::data(8, 1), 40);
        let writer = {
            let (ring, cursor) = (ring.clone(), cursor.clone());
            thread::spawn(move || {
                commit::commit(&*ring, 40, Header::jump(8, 2), 8);
                // Position 32 is the position of the jump.
                if fault || cursor.load(Ordering::Acquire) > 40 {
                    // The daemon is told, and removes the memory: from now on it reads as zeros.
                    ring.put(24, 0);
                    commit::clear(&*ring, 40);
                }
            })
        };
        assert_eq!(ring.get(24), 101, "the memory was taken under it");
        if let Kind::Jump { target: 8 } = commit::look(&*ring, 40).kind() {
            wake::publish_cursor(&cursor, &AtomicU64::new(0), &AtomicU64::new(0), 48, 0);
        }
        writer.join().unwrap();
    });
}

#[test]
fn memory_goes_when_everybody_has_followed_the_jump() {
    shrink(false);
}

#[test]
#[should_panic(expected = "the memory was taken under it")]
fn a_shrink_that_waits_for_nobody_is_found() {
    shrink(true);
}

/// How the daemon tells the writer of a reader that has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// First the line, then the generation, then that there are no more lines to come.
    InOrder,
    /// That there are no more lines to come, before the generation.
    TooEarly,
}

/// A daemon has died. A reader stands at the first record. The new daemon's writer does not know the reader yet, but
/// knows that there are lines to come, and moves no floor before it has them. Then the reader is named.
fn resume(naming: Naming) {
    loom::model(move || {
        let payload = Arc::new(AtomicU64::new(100));
        let (generation, pending) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(1)));
        let link = Arc::new(Mutex::new(false));
        let cursor = Arc::new(AtomicU64::new(0));
        let writer = {
            let (payload, cursor) = (payload.clone(), cursor.clone());
            let (generation, pending, link) = (generation.clone(), pending.clone(), link.clone());
            thread::spawn(move || {
                let (floor, next_floor) = (Published::default(), Published::default());
                // As `Lease::renew`, and then `Writer::read_link`.
                let known = generation.load(Ordering::Acquire);
                let named = *link.lock().unwrap();
                let withheld = pending.load(Ordering::Acquire) > 0;
                let held = named && cursor.load(Ordering::Acquire) < BEHIND.pos;
                let places = (Place::default(), BEHIND);
                if !withheld
                    && !held
                    && floor::advance(
                        &next_floor,
                        &floor,
                        places,
                        || generation.load(Ordering::Acquire) != known,
                        Barrier::Symmetric,
                    )
                {
                    payload.store(999, Ordering::Relaxed);
                }
            })
        };
        let daemon = {
            let (generation, pending, link) = (generation.clone(), pending.clone(), link.clone());
            thread::spawn(move || {
                *link.lock().unwrap() = true;
                match naming {
                    Naming::InOrder => {
                        generation.fetch_add(1, Ordering::SeqCst);
                        pending.store(0, Ordering::SeqCst);
                    }
                    Naming::TooEarly => {
                        pending.store(0, Ordering::SeqCst);
                        generation.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        };
        assert_eq!(payload.load(Ordering::Relaxed), 100, "what a reader that came back reads was overwritten");
        wake::publish_cursor(&cursor, &AtomicU64::new(0), &AtomicU64::new(0), BEHIND.pos, 0);
        daemon.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn nothing_is_overwritten_under_a_reader_that_comes_back() {
    resume(Naming::InOrder);
}

#[test]
#[should_panic(expected = "what a reader that came back reads was overwritten")]
fn a_daemon_that_says_that_no_lines_are_to_come_before_it_announces_the_last_is_found() {
    resume(Naming::TooEarly);
}

/// When the daemon says that the writer knows all readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowing {
    /// After the lease page says that there are lines to come.
    AfterLinesToCome,
    /// Before that.
    TooEarly,
}

/// A reader has attached to the daemon that came in the place of a dead one, and stands at the first record. The segment
/// says that the writer does not know it. Then the writer finds that daemon, which names the reader.
fn find(knowing: Knowing) {
    loom::model(move || {
        let payload = Arc::new(AtomicU64::new(100));
        let (generation, pending) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let unnamed = Arc::new(AtomicU64::new(1));
        let link = Arc::new(Mutex::new(false));
        let writer = {
            let (payload, unnamed) = (payload.clone(), unnamed.clone());
            let (generation, pending, link) = (generation.clone(), pending.clone(), link.clone());
            thread::spawn(move || {
                let (floor, next_floor) = (Published::default(), Published::default());
                // As `Lease::renew`, and then `Writer::read_link`.
                let known = (generation.load(Ordering::Acquire), unnamed.load(Ordering::Acquire));
                let withheld = known.1 > 0 || pending.load(Ordering::Acquire) > 0;
                let named = *link.lock().unwrap();
                let is_news = || (generation.load(Ordering::Acquire), unnamed.load(Ordering::Acquire)) != known;
                let places = (Place::default(), BEHIND);
                if !withheld && !named && floor::advance(&next_floor, &floor, places, is_news, Barrier::Symmetric) {
                    payload.store(999, Ordering::Relaxed);
                }
            })
        };
        let daemon = {
            let (generation, pending, link) = (generation.clone(), pending.clone(), link.clone());
            thread::spawn(move || {
                if knowing == Knowing::TooEarly {
                    unnamed.store(0, Ordering::Relaxed);
                }
                pending.store(1, Ordering::SeqCst);
                if knowing == Knowing::AfterLinesToCome {
                    fence(Ordering::SeqCst);
                    unnamed.store(0, Ordering::Relaxed);
                }
                *link.lock().unwrap() = true;
                generation.fetch_add(1, Ordering::SeqCst);
                pending.store(0, Ordering::SeqCst);
            })
        };
        daemon.join().unwrap();
        writer.join().unwrap();
        assert_eq!(
            payload.load(Ordering::Relaxed),
            100,
            "what a reader stands at that the writer does not know was overwritten"
        );
    });
}

#[test]
fn nothing_is_overwritten_under_a_reader_that_the_writer_does_not_know_yet() {
    find(Knowing::AfterLinesToCome);
}

#[test]
#[should_panic(expected = "that the writer does not know was overwritten")]
fn a_daemon_that_says_too_early_that_the_writer_knows_all_readers_is_found() {
    find(Knowing::TooEarly);
}
