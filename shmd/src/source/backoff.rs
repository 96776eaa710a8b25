//! The delay before a child that has ended is started again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(30);
/// A run of this length or longer resets the delay.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// Doubles from 200 ms to 30 s with each run that was shorter than 10 s.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Backoff(Duration);

impl Backoff {
    /// Nothing has ended yet.
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// The wait after a run of this length.
    pub(super) fn after(&mut self, run: Duration) -> Duration {
        if run >= GOOD_RUN {
            self.0 = FIRST;
        }
        let wait = self.0;
        self.0 = (2 * wait).min(MOST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_its_most_and_begins_again_after_a_good_run() {
        let mut backoff = Backoff::new();
        let waits: Vec<u64> = (0..10).map(|_| backoff.after(Duration::ZERO).as_millis() as u64).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.after(GOOD_RUN), FIRST);
        assert_eq!(backoff.after(GOOD_RUN / 2), 2 * FIRST);
    }
}
