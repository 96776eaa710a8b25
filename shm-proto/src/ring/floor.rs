//! Moving the floor while readers attach. Generic over the atomics, so that loom checks the code that runs.
//!
//! A reader chooses its start without the writer's help, while the writer may be about to overwrite that very place. So
//! both sides store first, and then look at what the other side has stored:
//!
//! | writer | daemon, then the reader |
//! |---|---|
//! | stores the next floor | raises the lease's generation |
//! | light barrier | heavy barrier |
//! | looks at the generation once more | looks at the next floor, and starts there |
//!
//! Either the writer sees the new generation, and registers the reader before it moves the floor, or the reader sees
//! the next floor. In both cases nothing at or after the reader's start is overwritten, and a lossless channel reports
//! no loss to a new reader.
//!
//! A daemon that has come in the place of a dead one, and that the writer has not found yet, cannot raise the
//! generation, because the writer alone has the lease page. It counts its readers in the segment's
//! [`Notes::unnamed`](super::layout::Notes::unnamed) instead, and the writer looks at both.

use super::published::{Place, Published};
use super::wake::Barrier;

/// Writer: moves the floor from one place to another, unless there is news from the daemon by then. Returns false if the
/// floor has not moved; the writer must read its link first.
///
/// `is_news` says whether the daemon has changed one of its two words since the link was read. It must load them with
/// Acquire, which pairs with the daemon's increment of the generation: the line that the increment announces is on the
/// link.
pub(crate) fn advance(
    next_floor: &Published,
    floor: &Published,
    (from, to): (Place, Place),
    is_news: impl FnOnce() -> bool,
    barrier: Barrier,
) -> bool {
    next_floor.store(to);
    barrier.light();
    if is_news() {
        // A reader that has seen the next floor in the meantime starts there, which is also at a whole record.
        next_floor.store(from);
        return false;
    }
    // This ends with a Release fence: a reader that sees a byte written below the new floor also sees the new floor.
    floor.store(to);
    true
}
