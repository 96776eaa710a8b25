//! The clock of the library: moments are numbers of nanoseconds, as the kernel's waits and the shared pages need them.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI64, Ordering};
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

/// The date of a moment of [`monotonic_ns`], by what the machine's clock says now. Two moments keep their order and their
/// distance, unless the clock is set between the two calls.
#[must_use]
pub fn date(ns: u64) -> SystemTime {
    // No moment is before 1970, and none is so late that it has no date.
    SystemTime::UNIX_EPOCH + Duration::from_nanos(ns.saturating_add_signed(offset_ns()))
}

/// How far the wall clock is ahead of [`monotonic_ns`]. The two run at the same rate, so the difference changes only when somebody
/// sets the clock. A measurement is wrong by the time that it takes, and would disorder moments that are close to each other. So an
/// earlier one counts until the clocks differ by more than that.
fn offset_ns() -> i64 {
    const MOST_WRONG: u64 = 100_000;
    static OFFSET: AtomicI64 = AtomicI64::new(i64::MIN);
    let mut known = OFFSET.load(Ordering::Relaxed);
    for _ in 0..10 {
        let before = monotonic_ns();
        let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let took = monotonic_ns() - before;
        let measured = i64::try_from(date.as_nanos()).unwrap_or(i64::MAX).saturating_sub_unsigned(before + took / 2);
        let is_first = known == i64::MIN;
        if is_first || (took < MOST_WRONG && measured.abs_diff(known) > 2 * MOST_WRONG) {
            OFFSET.store(measured, Ordering::Relaxed);
            known = measured;
        }
        // A first measurement that was interrupted is taken again.
        if took < MOST_WRONG {
            break;
        }
    }
    known
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
        let dates: Vec<_> = (0..10_000).map(|n| super::date(now + n)).collect();
        assert!(dates.is_sorted_by(|one, other| *other == *one + Duration::from_nanos(1)));
        let _ = [0, u64::MAX].map(super::date);
    }

    #[test]
    fn the_clock_advances_by_at_least_what_was_slept() {
        let before = monotonic_ns();
        std::thread::sleep(Duration::from_millis(5));
        assert!(monotonic_ns() - before >= 5_000_000);
    }
}
