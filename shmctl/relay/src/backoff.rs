//! Pauses between attempts: each twice as long as the one before, up to a limit, and each shortened by chance, so that many
//! relays that lost the same server do not all come back at the same moment.

use std::time::Duration;

use shm_proto::internal::os::random;

/// The longest pause after the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause of all.
const LONGEST: Duration = Duration::from_secs(10);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: usize,
}

impl Backoff {
    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        pause(self.failures)
    }

    /// Something has succeeded.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether this is the first failure in a row, or one of the few that are worth a line in the log.
    pub(crate) fn is_worth_a_line(&self) -> bool {
        self.failures.is_power_of_two()
    }
}

/// The pause after this number of failures in a row.
pub(crate) fn pause(failures: usize) -> Duration {
    between(failures, random::u64())
}

fn between(failures: usize, chance: u64) -> Duration {
    let doubled = u32::try_from(failures.saturating_sub(1)).ok().and_then(|n| 1u32.checked_shl(n)).unwrap_or(u32::MAX);
    let longest = FIRST.saturating_mul(doubled).min(LONGEST);
    let half = longest / 2;
    half + half.mul_f64((chance >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_chance_takes_up_to_half() {
        let longest = |failures| between(failures, u64::MAX).as_millis();
        assert_eq!([1, 2, 3, 7].map(longest), [100, 200, 400, 6400]);
        for failures in [8, 40, usize::MAX] {
            assert_eq!(longest(failures), 10_000);
            assert_eq!(between(failures, 0), LONGEST / 2);
        }
        assert_eq!(between(0, 0), FIRST / 2);
    }

    #[test]
    fn failures_are_told_less_and_less_often() {
        let mut backoff = Backoff::default();
        let told: Vec<_> = (1..=20)
            .filter(|_| {
                backoff.next();
                backoff.is_worth_a_line()
            })
            .collect();
        assert_eq!(told, [1, 2, 4, 8, 16]);
        backoff.reset();
        backoff.next();
        assert!(backoff.is_worth_a_line());
    }
}
