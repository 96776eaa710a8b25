//! `--progress`: messages, bytes and rates, on standard error if that is a terminal.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::human::{bytes_in_words, bytes_per_second, counted, per_second};
use crate::terminal::{shortened, size};

/// The time between two drawings.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// A line that is drawn again and again in the same place.
#[derive(Debug)]
pub(super) struct Progress {
    is_wanted: bool,
    drawn: Option<Instant>,
    /// What the last drawing showed, and what it was drawn with.
    last: (u64, u64),
}

impl Progress {
    pub(super) fn new(is_wanted: bool) -> Self {
        Progress { is_wanted, drawn: None, last: (0, 0) }
    }

    /// The longest wait between two calls of [`show`](Self::show).
    pub(super) fn interval(&self) -> Duration {
        if self.is_wanted { INTERVAL } else { Duration::MAX }
    }

    /// Draws the line if it is time to. `so_far` says the messages and bytes that were published.
    pub(super) fn show(&mut self, so_far: impl FnOnce() -> (u64, u64)) {
        if !self.is_wanted {
            return;
        }
        let now = Instant::now();
        let elapsed = self.drawn.map(|drawn| now.duration_since(drawn));
        if elapsed.is_some_and(|elapsed| elapsed < INTERVAL) {
            return;
        }
        // The size is asked for each time, because the user may resize the terminal.
        let Some(size) = size(&io::stderr()) else {
            self.is_wanted = false;
            return;
        };
        let so_far = so_far();
        let line = line(so_far, self.last, elapsed.unwrap_or_default());
        // There is no other place to report that standard error is closed.
        let _ = write!(io::stderr(), "\r{}\x1b[K", shortened(&line, size.columns.saturating_sub(1)));
        (self.drawn, self.last) = (Some(now), so_far);
    }

    /// Removes the line, before something else is written there.
    pub(super) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line((messages, all): (u64, u64), last: (u64, u64), elapsed: Duration) -> String {
    let rate = |now: u64, then: u64| {
        if elapsed.is_zero() { 0.0 } else { now.saturating_sub(then) as f64 / elapsed.as_secs_f64() }
    };
    format!(
        "{}, {}  {}, {}",
        counted(messages, "message", "s"),
        bytes_in_words(all),
        per_second(rate(messages, last.0)),
        bytes_per_second(rate(all, last.1))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_totals_and_the_rates_since_the_last_one() {
        let shown = line((12_345, 3 << 20), (345, 1 << 20), Duration::from_millis(500));
        assert_eq!(shown, "12,345 messages, 3MiB  24k/s, 4MiB/s");
        assert_eq!(line((1, 5), (0, 0), Duration::ZERO), "1 message, 5 bytes  0/s, 0/s");
    }

    #[test]
    fn nothing_is_drawn_unless_it_is_wanted() {
        let mut progress = Progress::new(false);
        progress.show(|| unreachable!("nobody asks"));
        assert_eq!(progress.interval(), Duration::MAX);
    }
}
