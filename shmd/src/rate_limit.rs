//! Log lines that a peer can trigger: a limited number per second, the rest counted.

use std::fmt;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// Admits `burst` lines a second and counts the ones left out.
#[derive(Debug)]
pub(crate) struct RateLimit {
    burst: u32,
    window: Option<Instant>,
    admitted: u32,
    left_out: u64,
}

/// The number of lines of this kind left out since the last one written; shown as nothing if it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl LeftOut {
    /// The number.
    pub(crate) fn count(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " left_out={n}"),
        }
    }
}

impl RateLimit {
    /// At most `burst` lines in any second.
    pub(crate) const fn new(burst: u32) -> Self {
        Self { burst, window: None, admitted: 0, left_out: 0 }
    }

    /// Whether a line may be written now; if so, what to append to it.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<LeftOut> {
        if self.window.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            self.window = Some(now);
            self.admitted = 0;
        }
        if self.admitted == self.burst {
            self.left_out += 1;
            return None;
        }
        self.admitted += 1;
        Some(LeftOut(std::mem::take(&mut self.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_burst_are_left_out_and_counted_in_the_next_one() {
        let mut limit = RateLimit::new(2);
        let start = Instant::now();
        assert_eq!(limit.admit(start), Some(LeftOut(0)));
        assert_eq!(limit.admit(start), Some(LeftOut(0)));
        assert_eq!(limit.admit(start), None);
        assert_eq!(limit.admit(start + WINDOW / 2), None);
        let next = limit.admit(start + WINDOW).unwrap();
        assert_eq!(next.to_string(), " left_out=2");
        assert_eq!(limit.admit(start + WINDOW).unwrap().to_string(), "");
    }
}
