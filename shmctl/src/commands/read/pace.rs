//! A limit on the number of messages per second.

use std::time::{Duration, Instant};

/// A reader that was late may catch up by this much, so that high rates do not suffer from the clock of the scheduler.
const LATE: Duration = Duration::from_millis(2);

/// When the next message may be written.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn per_second(rate: f64) -> Self {
        Pace { interval: Duration::from_secs_f64(1.0 / rate), due: None }
    }

    /// The time until the next message may be written.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// A message was written.
    pub(super) fn written(&mut self, now: Instant) {
        let begun = self.due.map_or(now, |due| due.max(now.checked_sub(LATE).unwrap_or(now)).min(now));
        self.due = begun.checked_add(self.interval);
    }
}

/// A rate on the command line.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // The slowest is a message a day.
        Ok(rate) if (1.0 / 86_400.0..=1e9).contains(&rate) => Ok(rate),
        _ => Err(format!("{text:?} is not a number of messages per second, such as 10 or 0.5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_an_interval_apart_and_little_is_caught_up_with() {
        let (mut pace, begun) = (Pace::per_second(100.0), Instant::now());
        assert_eq!(pace.left(begun), Duration::ZERO);
        pace.written(begun);
        assert_eq!(pace.left(begun), Duration::from_millis(10));
        let late = begun + Duration::from_millis(11);
        assert_eq!(pace.left(late), Duration::ZERO);
        pace.written(late);
        assert_eq!(pace.left(late), Duration::from_millis(9));
        let later = begun + Duration::from_secs(1);
        pace.written(later);
        assert_eq!(pace.left(later), Duration::from_millis(8));
    }

    #[test]
    fn a_rate_is_a_positive_number() {
        assert_eq!([rate("10").unwrap(), rate("0.5").unwrap()], [10.0, 0.5]);
        for text in ["0", "-1", "NaN", "inf", "fast", "", "1e-9"] {
            assert!(rate(text).unwrap_err().contains("such as 10"), "{text}");
        }
    }
}
