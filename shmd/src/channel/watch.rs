//! Looking after a channel once a second: figures, and peers that show no sign of life.

use std::sync::atomic::Ordering;
use std::time::Instant;

use shm_proto::internal::ring::Snapshot;
use shm_proto::internal::ring::layout::waiting;

use super::Channel;
use crate::lease::Holder;
use crate::liveness::Found;
use crate::operation_log::{Operation, operation};
use crate::rates::{Averages, Totals};

impl Channel {
    /// Messages and bytes a second.
    pub(crate) fn averages(&self, shot: &Snapshot) -> Averages {
        self.history.averages(self.totals(Instant::now(), shot))
    }

    /// Takes the figures of a tick.
    pub(super) fn note(&mut self, now: Instant, shot: &Snapshot) {
        self.history.note(self.totals(now, shot));
    }

    /// What readers can have: of a handoff not what waits in its feed.
    fn totals(&self, at: Instant, shot: &Snapshot) -> Totals {
        let (messages, bytes) = match &self.handoff {
            Some(handoff) => handoff.handed_over(),
            None => (shot.tail.seq, shot.tail.bytes),
        };
        Totals { at, messages, bytes }
    }

    /// Reports peers that have fallen silent, and those that are back.
    pub(super) fn look_for_stalled(&mut self, now: Instant, shot: &Snapshot) {
        let (name, patience) = (&self.config.name, self.config.stalled_after);
        // A feed's only reader is the daemon itself, which waits for the handoff's readers.
        let readers = self.readers.iter_mut().filter(|_| self.handoff.is_none());
        for (number, reader) in readers.filter(|(_, reader)| !reader.evicted) {
            let cursor = reader.cursor();
            // Asleep on its semaphore a reader wakes once a second; in a poll loop it sleeps as long as there is nothing.
            let dozes = reader.page().waiting.value.load(Ordering::Relaxed) == waiting::SEMAPHORE;
            let due = dozes || cursor.is_none_or(|cursor| cursor < shot.tail.pos);
            let heartbeat = reader.page().line.heartbeat.load(Ordering::Relaxed);
            let found = reader.pulse.look(now, cursor.unwrap_or(u64::MAX), heartbeat, due, patience);
            report(found, |event| operation(event).on(name).number("reader", *number).peer(&reader.peer));
            // So that the next look sees whether the reader has moved.
            reader.ask();
        }
        if let Some(handoff) = &mut self.handoff {
            handoff.look_for_stalled(now, &self.config);
        }
        let Some(lease) = &mut self.lease else { return };
        // A source's thread sleeps until there is input, and lives and dies with the daemon.
        if let Holder::Lent { peer, .. } = &lease.holder {
            let found = lease.pulse.look(now, shot.tail.pos, shot.writer_heartbeat, true, patience);
            report(found, |event| operation(event).on(name).text("role", "writer").peer(peer));
        }
    }
}

pub(super) fn report(found: Found, about: impl Fn(&'static str) -> Operation) {
    match found {
        Found::Same => {}
        Found::Stalled(still) => about("stalled").number("silent_ms", still.as_millis()).warn(),
        Found::Recovered => about("recovered").info(),
    }
}
