//! Looking after a ring once per second: its segment, and peers that show no sign of life.

use std::time::Instant;

use shm_proto::internal::ring::Snapshot;
use shm_proto::internal::ring::layout::waiting;

use super::Ring;
use super::lease::Lease;
use crate::channel::reader::report;
use crate::connections::Connections;
use crate::operation_log::{LogEvent, operation};

impl Ring {
    /// Checks the segment. Returns what its header says, unless the segment is broken and cannot be replaced now.
    pub(in crate::channel) fn look_after_segment(
        &mut self,
        connections: &mut Connections,
        now: Instant,
    ) -> Option<Snapshot> {
        if !self.retry_healing(connections, now) {
            return None;
        }
        match self.check(connections) {
            Ok(shot) => Some(shot),
            Err(e) => {
                if let Some(left_out) = self.trouble.admit(now) {
                    self.about(LogEvent::Broken).reason(e).left_out(left_out).warn();
                }
                None
            }
        }
    }

    /// Reports readers that have become silent, and readers that are back.
    pub(in crate::channel) fn look_after_readers(&mut self, now: Instant, shot: &Snapshot) {
        let (name, patience) = (&self.config.name, self.config.stalled_after);
        // A writer that has not found this daemon yet, or has not looked at its answer, does not know, and does not wake, readers
        // that have attached since. Of a reader that has come back, such a writer takes the flag, and rings the bell that
        // the reader had before.
        let is_unknown = self.writer.expected().is_some() || self.writer.lease().is_some_and(Lease::is_behind);
        for (number, reader) in self.readers.standing_mut() {
            let cursor = reader.cursor();
            // A reader that sleeps on its semaphore wakes once per second. In a poll loop, it sleeps until there is
            // something to read.
            let dozes = reader.waiting() == waiting::SEMAPHORE;
            let has_something = cursor.is_none_or(|cursor| cursor < shot.tail.pos);
            if is_unknown && has_something && !dozes {
                reader.ring();
            }
            let due = dozes || has_something;
            let found = reader.look(now, cursor.unwrap_or(u64::MAX), due, patience);
            report(found, |event| reader.about(event, name, number));
            // So that the next look sees whether the reader has moved.
            reader.ask();
        }
    }

    /// The same for a program that writes. Also sends lines that wait for the writer, and releases segments that
    /// readers have left.
    pub(in crate::channel) fn look_after_writer(
        &mut self,
        connections: &mut Connections,
        now: Instant,
        shot: &Snapshot,
    ) {
        if self.returning.missing() > 0 {
            self.bury_missing(connections);
        }
        let (name, patience) = (&self.config.name, self.config.stalled_after);
        let mut has_lines = false;
        if let Some(lease) = self.writer.lease_mut() {
            let found = lease.look(now, shot, patience);
            if let Some(peer) = lease.program() {
                report(found, |event| operation(event).on(name).text("role", "writer").peer(peer));
            }
            has_lines = lease.has_lines();
        }
        self.segments.forget_formers(&self.readers);
        if has_lines {
            self.send_lines(connections);
        }
    }
}
