//! Readers of a daemon that died, which this one does not know until they come back: (state, event) -> (state, what follows). Pure.
//!
//! The dead daemon has noted how many there were. A writer that begins before they are back gives nothing up, for a while.

use std::time::{Duration, Instant};

/// So long a writer waits for them, when the ring is full. A reader asks some dozen times a second, unless it is stopped.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Returning {
    missing: u64,
    until: Option<Instant>,
}

impl Returning {
    /// So many were attached.
    pub(super) fn expect(missing: u64) -> Self {
        Self { missing, until: None }
    }

    /// How many have not come back, as long as they are waited for.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Somebody is going to write: from now on they have so much time. Until when, if somebody is missing.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Instant> {
        (self.missing > 0).then(|| *self.until.get_or_insert(now + GRACE))
    }

    /// One has come back. True if it was the last.
    pub(super) fn came(&mut self) -> bool {
        let was = self.missing;
        self.missing = self.missing.saturating_sub(1);
        was == 1
    }

    /// They are waited for no longer. How many have not come.
    pub(super) fn give_up(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_begins_with_the_first_writer_and_ends_with_the_last_reader() {
        let now = Instant::now();
        let mut returning = Returning::expect(2);
        let until = returning.begin(now).unwrap();
        assert_eq!(returning.begin(now + GRACE / 2), Some(until), "another writer gives them no more time");
        assert!(!returning.came() && returning.missing() == 1);
        assert!(returning.came() && !returning.came());
        assert_eq!((returning.begin(now), returning.give_up()), (None, 0));
    }

    #[test]
    fn those_that_do_not_come_are_counted_once() {
        let mut returning = Returning::expect(3);
        assert!(!returning.came());
        assert_eq!((returning.give_up(), returning.give_up(), returning.missing()), (2, 0, 0));
        assert!(!returning.came());
    }
}
