//! Looking after a handoff channel once a second: its readers, those that the daemon knows and those that it does not.

use std::time::Instant;

use shm_proto::internal::ring::layout::waiting;

use super::HandoffChannel;
use crate::channel::reader::report;
use crate::connections::Connections;
use crate::operation_log::operation;
use crate::rates::Totals;

impl HandoffChannel {
    /// Whether [`tick`](Self::tick) has something to do: somebody is attached, a message is on offer, or there is memory to give
    /// back some day.
    pub(in crate::channel) fn wants_ticks(&self) -> bool {
        let state = self.thread.state();
        let large = self.config.shrink_after.is_some() && state.capacity > self.config.min;
        let in_use = self.reader_count() > 0 || state.on_offer.is_some() || self.feed.has_writer();
        in_use || large || self.feed.is_unsettled()
    }

    pub(in crate::channel) fn tick(&mut self, connections: &mut Connections, now: Instant) {
        let Some(shot) = self.feed.look_after_segment(connections, now) else { return };
        self.history.note(self.totals(now));
        self.look_after_readers(now);
        self.feed.look_after_writer(connections, now, &shot);
        if self.wants_ticks() {
            self.feed.look_after_size(connections, now, &shot);
            self.give_back(now);
        }
    }

    /// What readers have had, which is not what waits in the feed.
    pub(super) fn totals(&self, at: Instant) -> Totals {
        let counters = self.thread.state().counters;
        Totals { at, messages: counters.messages, bytes: counters.bytes }
    }

    /// Gives back memory that no message has needed for a while.
    fn give_back(&mut self, now: Instant) {
        let Some(after) = self.config.shrink_after else { return };
        let (capacity, needed) = (self.thread.state().capacity, self.thread.take_peak());
        if let Some(target) = self.low_use.sample(now, self.bounds(), capacity, needed, after) {
            self.thread.shrink_unused(target);
        }
    }

    /// Reports readers that have fallen silent, and those that are back.
    fn look_after_readers(&mut self, now: Instant) {
        let (state, name, patience) = (self.thread.state(), &self.config.name, self.config.stalled_after);
        for (number, reader) in self.readers.standing_mut() {
            // While it waits it gives a sign of life four times a second.
            let due = reader.waiting() != waiting::NO || state.on_offer.is_some();
            let found = reader.look(now, reader.received(), due, patience);
            report(found, |event| reader.about(event, name, number));
        }
        // Of the others it is only known that nobody acknowledges.
        let ended = state.counters.messages + state.counters.dropped;
        let found = self.pulse.look(now, ended, 0, state.on_offer.is_some(), patience);
        report(found, |event| {
            let about = operation(event).on(name).text("role", "reader");
            match state.on_offer {
                Some((len, _)) => about.number("on_offer", len).reason("nobody acknowledges the message on offer"),
                None => about,
            }
        });
    }
}
