//! How a reader waits for the next message.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::duration;

/// The shortest time to spin that can be asked for.
const SHORTEST: Duration = Duration::from_micros(1);
/// The longest time to spin. A reader that spins hears nothing from the daemon.
const LONGEST: Duration = Duration::from_secs(1);

/// How a reader waits for the next message: the trade between latency and processor time.
///
/// A message that finds its reader asleep arrives a wake-up later: 3 to 50 us, depending on the machine.
///
/// ```
/// use std::time::Duration;
/// use shm_proto::WaitStrategy;
/// assert_eq!("spin=50us".parse(), Ok(WaitStrategy::Spin(Duration::from_micros(50))));
/// assert_eq!(WaitStrategy::default().to_string(), "adaptive");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Looks for 3 us before each sleep, and for up to 50 us if the last waits were short. An idle reader costs nothing.
    #[default]
    Adaptive,
    /// Sleeps at once: the least processor time.
    Sleep,
    /// Looks for up to this time before each sleep, at most for a second, and does not offer the processor to others
    /// meanwhile: the least latency. For a reader that has a processor of its own.
    Spin(Duration),
}

impl WaitStrategy {
    /// Looks for up to this time before each sleep. `None` unless the time is 1 us to 1 s, as in text.
    #[must_use]
    pub fn spinning(time: Duration) -> Option<Self> {
        (SHORTEST..=LONGEST).contains(&time).then_some(WaitStrategy::Spin(time))
    }

    /// As a reader follows it: for a second at most.
    #[must_use]
    pub(crate) fn limited(self) -> Self {
        Self::of_word(self.to_word())
    }

    /// As a reader shows it in its page: 0, 1, or nanoseconds.
    pub(super) fn to_word(self) -> u64 {
        match self {
            WaitStrategy::Adaptive => 0,
            WaitStrategy::Sleep => 1,
            WaitStrategy::Spin(time) => (time.min(LONGEST).as_nanos() as u64).max(2),
        }
    }

    /// What a reader shows, which may write anything there.
    #[must_use]
    pub fn of_word(word: u64) -> Self {
        match word {
            0 => WaitStrategy::Adaptive,
            1 => WaitStrategy::Sleep,
            ns => WaitStrategy::Spin(Duration::from_nanos(ns).min(LONGEST)),
        }
    }
}

/// Text that is no way to wait.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is no way to wait: write adaptive, sleep, or spin=TIME with a time of 1us to 1s, such as spin=50us")]
pub struct BadWaitStrategy {
    /// The text as given.
    pub input: String,
}

impl FromStr for WaitStrategy {
    type Err = BadWaitStrategy;

    fn from_str(input: &str) -> Result<Self, BadWaitStrategy> {
        let spin = || -> Option<WaitStrategy> {
            let time = duration::parse(input.strip_prefix("spin=")?).ok()?;
            WaitStrategy::spinning(time)
        };
        match input {
            "adaptive" => Ok(WaitStrategy::Adaptive),
            "sleep" => Ok(WaitStrategy::Sleep),
            _ => spin().ok_or_else(|| BadWaitStrategy { input: input.to_owned() }),
        }
    }
}

impl fmt::Display for WaitStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitStrategy::Adaptive => f.pad("adaptive"),
            WaitStrategy::Sleep => f.pad("sleep"),
            WaitStrategy::Spin(time) => f.pad(&format!("spin={}", duration::show(*time))),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_and_survives_the_page() {
        for text in ["adaptive", "sleep", "spin=1us", "spin=50us", "spin=1s"] {
            let strategy: WaitStrategy = text.parse().unwrap();
            assert_eq!(strategy.to_string(), text);
            assert_eq!(WaitStrategy::of_word(strategy.to_word()), strategy);
        }
        for (time, is_good) in [(999, false), (1_000, true), (1_000_000_000, true), (1_000_000_001, false)] {
            let spinning = WaitStrategy::spinning(Duration::from_nanos(time));
            assert_eq!(spinning.is_some(), is_good, "{time} ns");
        }
        for bad in ["", "spin", "spin=", "spin=0", "spin=999ns", "spin=2s", "spin=50", "Sleep"] {
            assert_eq!(bad.parse::<WaitStrategy>(), Err(BadWaitStrategy { input: bad.to_owned() }));
        }
    }

    #[test]
    fn what_a_peer_writes_is_a_strategy_that_can_be_shown() {
        for word in [2, 999, 1_000_000_001, u64::MAX] {
            let shown = WaitStrategy::of_word(word);
            assert!(matches!(shown, WaitStrategy::Spin(time) if time <= LONGEST), "{shown}");
        }
        assert_eq!(WaitStrategy::Spin(Duration::MAX).to_word(), 1_000_000_000);
        assert_eq!(WaitStrategy::Spin(Duration::MAX).limited(), WaitStrategy::Spin(LONGEST));
        assert_eq!(WaitStrategy::Spin(Duration::ZERO).to_word(), 2);
    }
}
