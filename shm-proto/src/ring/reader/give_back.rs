//! Passing messages that were read, and giving their space back in steps.

use std::sync::atomic::Ordering;

use super::position::Found;
use super::{Joined, Reader};
use crate::os::clock::monotonic_ns;
use crate::ring::layout::{ReaderPage, control};
use crate::ring::published::is_unchanged;

/// How often a busy reader, when it gives space back, also reads what the daemon has sent.
const LISTEN_NS: u64 = 5_000_000;

impl Reader {
    /// [Passes](Self::pass) the record at the current place if the record is [settled](Self::is_settled). Returns
    /// whether it is.
    #[inline(always)]
    pub(super) fn pass_settled(&mut self, found: Found) -> bool {
        // Looked up only once, because the fence keeps the compiler from combining two lookups.
        let page: &ReaderPage = self.page.shared();
        let made = self.connection.moves.made();
        if self.joined == Joined::No || !is_unchanged(&page.control.value, control::EVICTED | control::MOVES, made) {
            return false;
        }
        self.position.pass(found);
        // Relaxed, for the same reason as in `Page::is_due`.
        if self.position.off() >= page.space_wanted.give_at.load(Ordering::Relaxed) {
            self.give_back_now();
        }
        true
    }

    #[inline(always)]
    pub(super) fn pass(&mut self, found: Found) {
        self.position.pass(found);
        if self.page.is_due(self.position.off()) {
            self.give_back_now();
        }
    }

    /// Gives back what was read since the last time, if anything.
    pub(super) fn give_back(&mut self) {
        if self.position.pos() != self.page.given_back() {
            self.give_back_now();
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn give_back_now(&mut self) {
        let now = monotonic_ns();
        self.page.beat(now);
        // A reader that never finds the ring empty learns here that the daemon has died and that another one has come.
        if now.saturating_sub(self.listened_ns) >= LISTEN_NS {
            self.listened_ns = now;
            self.listen();
        }
        let capacity = self.position.look_at_capacity();
        let step = if self.geometry().ack { 0 } else { capacity / 8 };
        let next = self.position.off().saturating_add(step);
        self.page.give_back((self.position.pos(), self.position.off()), next, (self.seq(), self.received()));
    }
}
