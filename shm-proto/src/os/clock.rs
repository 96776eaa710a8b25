//! The clock of the library: moments are numbers of nanoseconds, as the kernel's waits and the shared pages need them.
#![allow(unsafe_code)]

use std::time::{Duration, SystemTime};

use nix::libc;

/// `CLOCK_MONOTONIC` in nanoseconds: the same in every process of the machine, never set back, stops in suspend.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for a timespec, and the call cannot fail for this clock on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The moment `time` from now, as [`monotonic_ns`] will show it. A time that is too long to count never ends.
#[must_use]
pub fn after(time: Duration) -> u64 {
    monotonic_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The moment at which a wait ends. Without a timeout it never does.
#[must_use]
pub fn deadline(timeout: Option<Duration>) -> u64 {
    timeout.map_or(u64::MAX, after)
}

/// The time from now to a moment.
#[must_use]
pub fn left(until_ns: u64) -> Duration {
    Duration::from_nanos(until_ns.saturating_sub(monotonic_ns()))
}

/// The date of a moment of [`monotonic_ns`], by what the machine's clock says now.
#[must_use]
pub fn date(ns: u64) -> SystemTime {
    let (now, date) = (monotonic_ns(), SystemTime::now());
    let date = if ns <= now {
        date.checked_sub(Duration::from_nanos(now - ns))
    } else {
        date.checked_add(Duration::from_nanos(ns - now))
    };
    // Only a moment that a hostile program made up has no date.
    date.unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_the_date_that_it_had() {
        let (now, date) = (monotonic_ns(), SystemTime::now());
        for (moment, expected) in [(now, date), (now - 1_000_000, date - Duration::from_millis(1))] {
            let apart = super::date(moment).duration_since(expected).unwrap_or_else(|e| e.duration());
            assert!(apart < Duration::from_secs(60), "{apart:?}");
        }
        assert!(super::date(now - 7) < super::date(now + 1_000_000_000));
        let _ = [0, u64::MAX].map(super::date);
    }

    #[test]
    fn the_clock_advances_by_at_least_what_was_slept() {
        let before = monotonic_ns();
        std::thread::sleep(Duration::from_millis(5));
        assert!(monotonic_ns() - before >= 5_000_000);
    }
}
