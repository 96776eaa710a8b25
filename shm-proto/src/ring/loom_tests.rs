//! Every interleaving, and every value that the memory model lets a load return, of the lock-free steps.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p shm-proto --release --lib`. The models check the code that runs, with
//! loom's atomics in place of the machine's. A mutex and a condition variable model the semaphore, and a fence on both
//! sides models a `membarrier`.

mod attachments;
mod overwriting;
mod planted;
mod sleeping;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::commit::{self, Words};
use super::record::{Header, Kind};
use crate::sync::{AtomicU64, Ordering};

/// A data area of a few words: every record is a header and one word of payload, and the first header is at offset 8.
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

    /// Waits forever: a lost wake-up is a deadlock, which loom reports.
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
        let ring = Arc::new(Ring::new(7));
        // Old bytes where headers will be looked for.
        ring.word(24).store(u64::MAX, Ordering::Relaxed);
        ring.word(40).store(u64::MAX, Ordering::Relaxed);
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                for n in 0..2u64 {
                    ring.put(8 + n * 16, 100 + n);
                    commit::commit(&*ring, 8 + n * 16, Header::data(8, n), 24 + n * 16);
                }
            })
        };
        for n in 0..3u64 {
            match commit::look(&*ring, 8 + n * 16).kind() {
                Kind::Empty => break,
                Kind::Data { len: 8 } => assert_eq!(ring.get(8 + n * 16), 100 + n),
                other => panic!("{other:?}"),
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn who_sees_the_first_of_a_batch_sees_all_of_it() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(8));
        ring.word(24).store(u64::MAX, Ordering::Relaxed);
        ring.word(40).store(u64::MAX, Ordering::Relaxed);
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                ring.put(8, 100);
                commit::clear(&*ring, 24);
                ring.put(24, 101);
                commit::clear(&*ring, 40);
                commit::stage(&*ring, 24, Header::data(8, 1));
                commit::release(&*ring, 8, Header::data(8, 0));
            })
        };
        if commit::look(&*ring, 8).kind() != Kind::Empty {
            assert_eq!(ring.get(8), 100);
            assert_eq!(commit::look(&*ring, 24), Header::data(8, 1));
            assert_eq!(ring.get(24), 101);
            assert_eq!(commit::look(&*ring, 40).kind(), Kind::Empty);
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_jump_leads_to_a_cleared_header_or_a_whole_record() {
    loom::model(|| {
        let ring = Arc::new(Ring::new(7));
        ring.word(8).store(u64::MAX, Ordering::Relaxed);
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || {
                commit::commit(&*ring, 40, Header::jump(8, 5), 8);
                ring.put(8, 105);
                commit::commit(&*ring, 8, Header::data(8, 5), 24);
            })
        };
        if let Kind::Jump { target } = commit::look(&*ring, 40).kind() {
            match commit::look(&*ring, target).kind() {
                Kind::Empty => {}
                Kind::Data { len: 8 } => assert_eq!(ring.get(target), 105),
                other => panic!("{other:?}"),
            }
        }
        writer.join().unwrap();
    });
}
