//! Whether a peer shows signs of life. A stopped process (SIGSTOP, a debugger) looks alive to the kernel.
//!
//! A peer is alive if its values change between two looks; the times that it reports are not believed.

use std::time::{Duration, Instant};

/// What was last seen of one peer.
#[derive(Debug)]
pub(crate) struct Pulse {
    seen: (u64, u64),
    /// The look at which that was new.
    changed: Instant,
    since: Instant,
    /// Whether there should have been signs of life at the last look.
    due: bool,
    stalled: bool,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The same as at the last look.
    Same,
    /// No sign of life since then.
    Stalled(Duration),
    /// It shows signs of life again.
    Recovered,
}

impl Pulse {
    /// A peer that has just come.
    pub(crate) fn new(now: Instant) -> Self {
        Self { seen: (0, 0), changed: now, since: now, due: false, stalled: false }
    }

    /// Takes a look: its position and its heartbeat; whether there should be signs of life; how long it may show none.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        position: u64,
        heartbeat: u64,
        due: bool,
        patience: Option<Duration>,
    ) -> Found {
        // What it was waited for may have begun just before the first look at which it is due, so time counts from there.
        let was_due = std::mem::replace(&mut self.due, due);
        if self.seen != (position, heartbeat) {
            self.seen = (position, heartbeat);
            (self.changed, self.since) = (now, now);
        } else if !due || !was_due {
            self.since = now;
        }
        let still = now.saturating_duration_since(self.since);
        let stalled = patience.is_some_and(|most| still >= most);
        match std::mem::replace(&mut self.stalled, stalled) {
            before if before == stalled => Found::Same,
            true => Found::Recovered,
            false => Found::Stalled(still),
        }
    }

    /// How long ago, at least, a peer moved that stands at this position now: up to one pause between looks too little.
    pub(crate) fn unmoved(&self, now: Instant, position: u64) -> Duration {
        if self.seen.0 == position { now.saturating_duration_since(self.changed) } else { Duration::ZERO }
    }

    /// What the last look found.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_does_not_move_is_reported_once_and_once_more_when_it_does() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let mut look = |second, heartbeat, due| {
            let most = Some(Duration::from_secs(5));
            pulse.look(start + Duration::from_secs(second), 9, heartbeat, due, most)
        };
        assert_eq!(look(1, 1, true), Found::Same);
        assert_eq!(look(5, 1, true), Found::Same);
        assert_eq!(look(6, 1, true), Found::Stalled(Duration::from_secs(5)));
        assert_eq!(look(7, 1, true), Found::Same);
        assert_eq!(look(8, 2, true), Found::Recovered);
        assert_eq!(look(20, 2, false), Found::Same);
        // It may be due since second 23.
        assert_eq!(look(24, 2, true), Found::Same);
        assert_eq!(look(28, 2, true), Found::Same);
        assert_eq!(look(29, 2, true), Found::Stalled(Duration::from_secs(5)));
    }

    #[test]
    fn a_peer_that_moves_between_two_looks_has_moved_just_now() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut pulse = Pulse::new(start);
        pulse.look(at(2), 100, 7, false, None);
        pulse.look(at(3), 100, 7, false, None);
        assert_eq!(pulse.unmoved(at(4), 100), Duration::from_secs(2));
        assert_eq!(pulse.unmoved(at(4), 101), Duration::ZERO);
        pulse.look(at(5), 101, 7, false, None);
        assert_eq!(pulse.unmoved(at(6), 101), Duration::from_secs(1));
    }

    #[test]
    fn without_a_limit_nobody_stalls() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.look(start + Duration::from_secs(99_999), 0, 0, true, None), Found::Same);
    }
}
