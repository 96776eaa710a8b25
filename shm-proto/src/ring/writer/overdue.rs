//! Counting the time for which readers hold the writer up, and evicting readers that stand still for too long.
//!
//! Used for every kind of wait: for space, for acknowledgement, and for messages that are dropped or refused. The rules are
//! in [`Standstill`](crate::ring::standstill::Standstill).

use super::Writer;
use super::peers::Need;
use crate::os::clock::monotonic_ns;
use crate::ring::standstill::Limit;

impl Writer {
    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.geometry.evict_after_ms)
    }

    /// Counts a wait from when it began to now, or to when it was meant to end. If it took longer than that, this process was
    /// stopped, and the readers may have been stopped with it.
    pub(super) fn count_wait(&mut self, need: Need, begun_ns: u64, until_ns: u64) {
        let now = monotonic_ns();
        let waited = now.min(until_ns).saturating_sub(begun_ns);
        self.peers.waited(need, waited, self.limit());
        self.counted_ns = now;
    }

    /// Counts a message that is about to be dropped or refused for want of space. Returns true if a reader was evicted instead:
    /// try again.
    pub(super) fn count_refusal(&mut self, now: u64) -> bool {
        let need = Need::Space { tail: self.tail.pos() };
        let since = if self.counted_ns == 0 { 0 } else { now.saturating_sub(self.counted_ns) };
        self.peers.refused(need, since, self.limit());
        self.counted_ns = now;
        self.evict_overdue(need)
    }

    /// Evicts a reader that holds the writer up and has stood still for `evict_after`. Returns whether there was one.
    pub(super) fn evict_overdue(&mut self, need: Need) -> bool {
        let Some(peer) = self.peers.overdue(need, self.limit()) else { return false };
        let (id, lag) = (peer.id, self.tail.pos() - peer.cursor);
        let (stood, refused) = (peer.standstill.stood_ns() / 1_000_000, peer.standstill.refusals());
        let reason = if refused == 0 {
            format!("it held the writer up for {stood} ms without reading, {lag} bytes behind")
        } else {
            format!(
                "it read nothing for {stood} ms while there was no space for {refused} messages, {lag} bytes behind"
            )
        };
        self.evict(id, reason)
    }
}
