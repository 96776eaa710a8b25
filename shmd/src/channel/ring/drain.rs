//! The end of a source: the daemon waits for the readers that have not read everything.

use std::time::Instant;

use shm_proto::internal::ring::standstill::Limit;

use super::Ring;
use crate::channel::eviction::{By, Verdict};
use crate::connections::Connections;

impl Ring {
    /// Whether every reader has read everything. The caller repeats the call until this is true. Evicts a reader that
    /// has not moved for `evict_after`, as the writer would. A reader of a dead daemon that may still come back has not read everything.
    pub(crate) fn is_drained(&mut self, connections: &mut Connections, now: Instant) -> bool {
        self.bury_missing(connections);
        if self.returning.begin(now).is_some_and(|until| now < until) {
            return false;
        }
        let tail = match self.segments.current().snapshot() {
            Ok(shot) => shot.tail.pos,
            // The header could not be read this time; the next call may succeed.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => return false,
            Err(_) => return true,
        };
        let limit = Limit::new(self.segments.geometry().evict_after_ms);
        let (mut drained, mut over) = (true, Vec::new());
        for (number, reader) in self.readers.standing_mut() {
            let cursor = reader.cursor();
            if cursor.is_some_and(|cursor| cursor >= tail) {
                continue;
            }
            drained = false;
            match reader.standing_mut().is_late(cursor, tail, now, limit) {
                Verdict::Wait => {}
                Verdict::Ask => reader.ask(),
                Verdict::Evict(reason) => over.push((number, reason)),
            }
        }
        for (number, reason) in over {
            self.evict(connections, number, &reason, By::Daemon);
        }
        drained
    }
}
