//! Looking at the readers, and evicting them.

use std::sync::atomic::Ordering;

use super::Writer;
use crate::ring::link::ToDaemon;

impl Writer {
    /// Whether every attached reader has read everything. Returns true if the role has ended, because the writer then
    /// knows of no readers.
    pub fn is_drained(&mut self) -> bool {
        if self.lease.is_over() {
            return true;
        }
        self.refresh();
        self.peers.least() >= self.tail.pos()
    }

    /// Looks at every reader's cursor, and evicts readers whose cursor is impossible.
    pub(in crate::ring) fn refresh(&mut self) {
        let has_daemon = self.lease.is_attended();
        self.peers.bury(has_daemon);
        while let Some((id, reason)) = self.peers.refresh(self.tail.pos(), self.geometry.max_capacity)
            && self.evict(id, reason)
        {}
        // After the look at the cursors, which may find a reader's process.
        while let Some((id, reason)) = self.peers.lost(has_daemon)
            && self.evict(id, reason)
        {}
    }

    /// Evicts a reader for the sake of the others. Returns false, and evicts nobody, if the role has ended.
    #[cold]
    pub(super) fn evict(&mut self, id: u32, reason: String) -> bool {
        // A reader that follows the next writer may have a cursor at a position that this writer has never reached. If
        // this writer sees such a cursor, it also sees OVER here: the daemon set OVER before it lent the role again,
        // and this check comes after the look at the cursor. A daemon that this writer has not found says so in the segment.
        if self.is_deposed() {
            return false;
        }
        if let Some(peer) = self.peers.remove(id) {
            peer.mark_evicted();
            self.tail.counters().evicted.fetch_add(1, Ordering::Relaxed);
            self.tail.close();
            self.lease.tell(ToDaemon::Evicted { reader: id, reason });
        }
        true
    }
}
