//! The list of deadlines.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::Timer;

/// The deadlines, the nearest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(Instant, Timer)>,
    at: HashMap<Timer, Instant>,
}

impl Timers {
    /// Sets or clears a deadline.
    pub(super) fn set(&mut self, timer: Timer, at: Option<Instant>) {
        let before = match at {
            Some(at) => {
                self.order.insert((at, timer));
                self.at.insert(timer, at)
            }
            None => self.at.remove(&timer),
        };
        if let Some(before) = before.filter(|before| Some(*before) != at) {
            self.order.remove(&(before, timer));
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    /// The nearest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// One that has passed, which is cleared.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.order.first()?;
        if at > now {
            return None;
        }
        self.set(timer, None);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_set_anew_fires_once_at_the_new_time() {
        let mut timers = Timers::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        timers.set(Timer::Tick, Some(now));
        timers.set(Timer::Tick, Some(now + second));
        timers.set(Timer::Drain, Some(now + second * 2));
        timers.set(Timer::Drain, None);
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.pop_due(now + second), Some(Timer::Tick));
        assert_eq!(timers.pop_due(now + second * 3), None);
        assert_eq!(timers.next(), None);
    }
}
