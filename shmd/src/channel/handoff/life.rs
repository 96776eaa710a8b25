//! Looking after the readers of a handoff channel: those that the daemon knows, and those that it does not.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shm_proto::internal::ring::layout::waiting;

use super::{Handoff, about};
use crate::channel::watch::report;
use crate::config::ChannelConfig;
use crate::operation_log::operation;
use crate::policy::Bounds;

impl Handoff {
    /// The limits of the segment's length.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { min: self.config.min, max: self.config.max }
    }

    /// Whether there is memory to give back some day.
    pub(in crate::channel) fn is_large(&self) -> bool {
        self.bridge.state().capacity > self.config.min
    }

    /// Gives back memory that no message has needed for a while.
    pub(in crate::channel) fn give_back(&mut self, now: Instant, after: Duration) {
        let (capacity, needed) = (self.bridge.state().capacity, self.bridge.take_peak());
        if let Some(target) = self.low_use.sample(now, self.bounds(), capacity, needed, after) {
            self.bridge.shrink_unused(target);
        }
    }

    /// Whether figures move: somebody is attached, or a message is on offer.
    pub(in crate::channel) fn is_in_use(&self) -> bool {
        !self.readers.is_empty() || self.bridge.state().on_offer.is_some()
    }

    /// Reports readers that have fallen silent, and those that are back; `config` is the channel's.
    pub(in crate::channel) fn look_for_stalled(&mut self, now: Instant, config: &ChannelConfig) {
        let (state, patience): (_, Option<Duration>) = (self.bridge.state(), config.stalled_after);
        for (&number, reader) in self.readers.iter_mut().filter(|(_, reader)| !reader.evicted) {
            let page = reader.page();
            let received = page.line.received.load(Ordering::Relaxed);
            let heartbeat = page.line.heartbeat.load(Ordering::Relaxed);
            // While it waits it gives a sign of life four times a second.
            let dozes = page.waiting.value.load(Ordering::Relaxed) != waiting::NO;
            let found = reader.pulse.look(now, received, heartbeat, dozes || state.on_offer.is_some(), patience);
            report(found, |event| about(event, config, number, reader));
        }
        // Of the others it is only known that nobody acknowledges.
        let ended = state.counters.messages + state.counters.dropped;
        let found = self.pulse.look(now, ended, 0, state.on_offer.is_some(), patience);
        report(found, |event| {
            let about = operation(event).on(&config.name).text("role", "reader");
            match state.on_offer {
                Some((len, _)) => about.number("on_offer", len).reason("nobody acknowledges the message on offer"),
                None => about,
            }
        });
    }
}
