//! Going to sleep without missing a message, and waking only readers that sleep.
//!
//! Each side stores a word and then looks at the word of the other side: the writer commits a record and looks at the waiting
//! flag, the reader sets the flag and looks at the header. With a full barrier between store and look on *both* sides, at least
//! one side sees the other's store. A barrier in the writer would cost more than the rest of a small message. So the sleeper
//! runs `membarrier(GLOBAL_EXPEDITED)`, which is a full barrier on every CPU that runs a registered writer, and the writer only
//! keeps the compiler from moving the load up. If `membarrier` is not available, both sides run a fence.
//!
//! This holds on every processor that Linux runs on. A store followed by a load of another word is the one pair that x86-64
//! reorders. 64-bit Arm reorders it too, also if the store is a Release (`stlr`) and the load is a plain one. On both, the
//! interrupt that `membarrier` sends executes a full barrier between two instructions of the writer: stores before it are
//! visible, and loads after it see the sleeper's flag.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Which side pays for the full barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Both sides run a fence.
    Symmetric,
    /// The sleeper runs `membarrier`; the writer's process is registered for it.
    Asymmetric,
}

impl Barrier {
    /// For the writer, between the commit and the look at the flags.
    #[inline]
    pub fn light(self) {
        match self {
            #[cfg(not(loom))]
            Barrier::Asymmetric => std::sync::atomic::compiler_fence(Ordering::SeqCst),
            // loom has no membarrier. By definition it is a fence on both sides, so loom checks that.
            _ => fence(Ordering::SeqCst),
        }
    }

    /// Whether [`heavy`](Self::heavy) does what the writer relies on. It does not if the daemon has `membarrier` and this
    /// process is in a sandbox without it.
    #[cfg(not(loom))]
    #[must_use]
    pub(crate) fn is_heavy(self) -> bool {
        self == Barrier::Symmetric || crate::os::barrier::available()
    }

    /// For the sleeper, between setting its flag and the last look.
    pub fn heavy(self) {
        match self {
            #[cfg(not(loom))]
            Barrier::Asymmetric => crate::os::barrier::heavy(),
            _ => fence(Ordering::SeqCst),
        }
    }
}

/// Reader: announces that it is about to sleep, and how. The reader has published its cursor before this call, and must look once
/// more after it.
pub fn arm(waiting: &AtomicU32, how: u32, barrier: Barrier) {
    // Release pairs with the Acquire load in `sleeps_before`: a writer that sees the flag sees the cursor published before it.
    waiting.store(how, Ordering::Release);
    barrier.heavy();
}

/// Reader: no longer asleep.
pub(crate) fn disarm(waiting: &AtomicU32) {
    waiting.store(0, Ordering::Relaxed);
}

/// Writer, after the commit and [`Barrier::light`]: whether this reader sleeps before `tail`, so that there is a message to
/// read or a jump to follow. A reader that sleeps at the tail has read everything, and its flag stays set until there is more.
#[inline]
pub(crate) fn sleeps_before(waiting: &AtomicU32, cursor: &AtomicU64, tail: u64) -> bool {
    // Acquire pairs with the Release store in `arm`: the cursor is at least as recent as the flag.
    waiting.load(Ordering::Acquire) != 0 && cursor.load(Ordering::Relaxed) < tail
}

/// Writer: clears the flag and returns how this reader sleeps. The writer must then wake the reader. Returns 0 if the reader
/// has woken up meanwhile.
#[inline]
pub fn take(waiting: &AtomicU32) -> u32 {
    waiting.swap(0, Ordering::Relaxed)
}

/// Writer: announces that it is about to sleep until the cursor reaches `wanted`. Returns true if the cursor is there already.
pub(crate) fn want_space(space_wanted: &AtomicU64, cursor: &AtomicU64, wanted: u64) -> bool {
    space_wanted.store(wanted, Ordering::Relaxed);
    // SeqCst pairs with the fence in `publish_cursor`: one of the two sees the other's store.
    fence(Ordering::SeqCst);
    let cursor = cursor.load(Ordering::Relaxed);
    if cursor >= wanted {
        space_wanted.store(0, Ordering::Relaxed);
        return true;
    }
    false
}

/// Reader: gives the space before `pos` back. The reader does this again when a record ends at or after offset `next`, or when
/// it is [asked](ask_for_cursor). Returns true if the writer sleeps for the space, so that the reader must post the semaphore.
pub(crate) fn publish_cursor(
    cursor: &AtomicU64,
    space_wanted: &AtomicU64,
    give_at: &AtomicU64,
    pos: u64,
    next: u64,
) -> bool {
    // This store comes before the store of the cursor. So a request by a process that has seen this cursor comes after this
    // store, which therefore does not overwrite the request.
    give_at.store(next, Ordering::Relaxed);
    // Release pairs with the Acquire loads of the cursor: this reader's reads of the space end before the space is reused, and
    // the store above comes before any request that follows such a load.
    cursor.store(pos, Ordering::Release);
    // SeqCst pairs with the fence in `want_space`.
    fence(Ordering::SeqCst);
    let wanted = space_wanted.load(Ordering::Relaxed);
    wanted != 0 && pos >= wanted && space_wanted.swap(0, Ordering::Relaxed) != 0
}

/// Writer or daemon, after an Acquire load of the cursor: makes the reader publish its cursor after its current message. Readers
/// publish their cursors in steps, so without this request an unchanged cursor proves nothing.
pub fn ask_for_cursor(give_at: &AtomicU64) {
    give_at.store(0, Ordering::Relaxed);
}
