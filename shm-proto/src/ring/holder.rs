//! The holder of the writer role, for readers whose daemon has died. Generic over the atomics, so that loom checks the code that
//! runs.
//!
//! While the daemon lives, it tells the readers when a channel ends. Without it, a reader that finds the ring empty looks at
//! these two words. If they name no writer, the reader looks at the ring once more, and only then reports the end. So the words
//! must not become visible before the records: on 64-bit Arm, a plain store may become visible before the header that was stored
//! earlier, and two plain loads may happen in either order. x86-64 does neither.

use crate::sync::{AtomicU64, Ordering, fence};

/// Writer: names the process that holds the role, by its number and its start.
pub(crate) fn take_up(writer_pid: &AtomicU64, writer_start: &AtomicU64, (pid, start): (u64, u64)) {
    writer_start.store(start, Ordering::Relaxed);
    // Release: pairs with the Acquire fence in `holder`; a reader that sees the number sees the start that belongs to it.
    writer_pid.store(pid, Ordering::Release);
}

/// Writer, after its last record: says that no process holds the role.
pub(crate) fn give_up(writer_pid: &AtomicU64) {
    // Release: pairs with the Acquire fence in `holder`; a reader that sees the 0 sees every record published before it.
    writer_pid.store(0, Ordering::Release);
}

/// Reader: number and start of the process that holds the role, or `None` when its writer has given it up. A look at the ring
/// after that finds the writer's last record.
pub(crate) fn holder(writer_pid: &AtomicU64, writer_start: &AtomicU64) -> Option<(u64, u64)> {
    // Relaxed loads and a fence, because the mapping may be read-only: see `look`.
    let pid = writer_pid.load(Ordering::Relaxed);
    // Acquire: pairs with the Release stores in `take_up` and `give_up`.
    fence(Ordering::Acquire);
    (pid != 0).then(|| (pid, writer_start.load(Ordering::Relaxed)))
}

#[cfg(all(test, loom))]
mod tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::ring::commit;
    use crate::ring::loom_tests::Ring;
    use crate::ring::record::{Header, Kind};

    /// The daemon is gone. A reader that has found the ring empty and then finds no writer looks once more before it reports
    /// the end.
    #[test]
    fn a_reader_that_finds_no_writer_finds_the_last_record() {
        loom::model(|| {
            let ring = Arc::new(Ring::new(4));
            let (pid, start) = (Arc::new(AtomicU64::new(7)), AtomicU64::new(70));
            let writer = {
                let (ring, pid) = (ring.clone(), pid.clone());
                thread::spawn(move || {
                    ring.put(0, 100);
                    commit::commit(&*ring, 0, Header::data(8, 0), 16);
                    give_up(&pid);
                })
            };
            if commit::look(&*ring, 0).kind() == Kind::Empty && holder(&pid, &start).is_none() {
                assert_eq!(commit::look(&*ring, 0), Header::data(8, 0), "the last record was lost");
                assert_eq!(ring.get(0), 100);
            }
            writer.join().unwrap();
        });
    }

    #[test]
    fn who_sees_the_number_of_a_writer_sees_its_start() {
        loom::model(|| {
            let (pid, start) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(70)));
            let writer = {
                let (pid, start) = (pid.clone(), start.clone());
                thread::spawn(move || take_up(&pid, &start, (8, 80)))
            };
            assert!(matches!(holder(&pid, &start), None | Some((8, 80))));
            writer.join().unwrap();
        });
    }
}
