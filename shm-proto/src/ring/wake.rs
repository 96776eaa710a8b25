//! Going to sleep without missing a message, and waking only those who sleep.
//!
//! Both sides store, then look at what the other stored: the writer commits a record and looks at the waiting flag, the
//! reader sets the flag and looks at the header. A full barrier between store and look on *both* sides makes it impossible
//! that both look too early. The writer's would cost more than the rest of a small message, so the sleeper runs
//! `membarrier(GLOBAL_EXPEDITED)`, which is a full barrier on every CPU that runs a registered writer; the writer is left
//! with keeping its compiler from moving the load up. Where `membarrier` is not to be had both run a fence.
//!
//! This holds on every processor that Linux runs on. A store followed by a load of another word is the one pair that x86-64
//! reorders; 64-bit Arm reorders it too, even when the store is a Release (`stlr`) and the load is not an Acquire. On both, the
//! interrupt that `membarrier` sends executes a full barrier between two of the writer's instructions: everything before is
//! visible, and everything after sees the sleeper's flag.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Who pays for the full barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Both sides run a fence.
    Symmetric,
    /// The sleeper runs `membarrier`; the writer's process is registered for it.
    Asymmetric,
}

impl Barrier {
    /// The writer's side, between committing and looking at the flags.
    #[inline]
    pub fn light(self) {
        match self {
            #[cfg(not(loom))]
            Barrier::Asymmetric => std::sync::atomic::compiler_fence(Ordering::SeqCst),
            // loom has no membarrier; it is a fence on both sides by definition, so that is what loom checks.
            _ => fence(Ordering::SeqCst),
        }
    }

    /// Whether [`heavy`](Self::heavy) is what the writer counts on: not in a sandbox that has no `membarrier`, when the
    /// daemon has one.
    #[cfg(not(loom))]
    #[must_use]
    pub fn is_heavy(self) -> bool {
        self == Barrier::Symmetric || crate::os::barrier::available()
    }

    /// The sleeper's side, between setting its flag and looking once more.
    pub fn heavy(self) {
        match self {
            #[cfg(not(loom))]
            Barrier::Asymmetric => crate::os::barrier::heavy(),
            _ => fence(Ordering::SeqCst),
        }
    }
}

/// Reader: announces that it is about to sleep, and how. The reader has published its cursor before this, and has to look once
/// more before it sleeps.
pub fn arm(waiting: &AtomicU32, how: u32, barrier: Barrier) {
    // Release: pairs with the Acquire load in `sleeps_before`; a writer that sees the flag sees the cursor published before it.
    waiting.store(how, Ordering::Release);
    barrier.heavy();
}

/// Reader: no longer asleep.
pub fn disarm(waiting: &AtomicU32) {
    waiting.store(0, Ordering::Relaxed);
}

/// Writer, after committing and [`Barrier::light`]: whether this reader sleeps before `tail`, and so has something to read or a
/// jump to follow. A reader that sleeps at the tail has read everything: its flag stays up until there is something more.
#[inline]
pub fn sleeps_before(waiting: &AtomicU32, cursor: &AtomicU64, tail: u64) -> bool {
    // Acquire: pairs with the Release store in `arm`. The cursor is at least as recent as the flag.
    waiting.load(Ordering::Acquire) != 0 && cursor.load(Ordering::Relaxed) < tail
}

/// Writer: clears the flag and returns how this reader sleeps; 0 if it has woken up meanwhile. Otherwise it has to be woken.
#[inline]
pub fn take(waiting: &AtomicU32) -> u32 {
    waiting.swap(0, Ordering::Relaxed)
}

/// Writer: about to sleep until the cursor reaches `wanted`. True when it is there already.
pub fn want_space(space_wanted: &AtomicU64, cursor: &AtomicU64, wanted: u64) -> bool {
    space_wanted.store(wanted, Ordering::Relaxed);
    // SeqCst: pairs with the fence in `publish_cursor`; one of the two sees the other's store.
    fence(Ordering::SeqCst);
    let cursor = cursor.load(Ordering::Relaxed);
    if cursor >= wanted {
        space_wanted.store(0, Ordering::Relaxed);
        return true;
    }
    false
}

/// Reader: gives the space before `pos` back. It will do so again when a record ends at or after offset `next`, or when it is
/// [asked](ask_for_cursor). Returns true if the writer sleeps for the space and has to be posted.
pub fn publish_cursor(cursor: &AtomicU64, space_wanted: &AtomicU64, give_at: &AtomicU64, pos: u64, next: u64) -> bool {
    // Before the cursor: a request by somebody who has seen this cursor comes after this store, and is not overwritten by it.
    give_at.store(next, Ordering::Relaxed);
    // Release: pairs with the Acquire loads of the cursor. Our reads of the space end before it is reused, and the store above
    // comes before any request that follows such a load.
    cursor.store(pos, Ordering::Release);
    // SeqCst: pairs with the fence in `want_space`.
    fence(Ordering::SeqCst);
    let wanted = space_wanted.load(Ordering::Relaxed);
    wanted != 0 && pos >= wanted && space_wanted.swap(0, Ordering::Relaxed) != 0
}

/// Writer or daemon, after an Acquire load of the cursor: makes the reader publish its cursor after its current message. Readers
/// publish in steps, so an unchanged cursor proves nothing without this.
pub fn ask_for_cursor(give_at: &AtomicU64) {
    give_at.store(0, Ordering::Relaxed);
}
