//! The clock of the library: moments are numbers of nanoseconds, as the kernel's waits and the shared pages need them.
#![allow(unsafe_code)]

use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_advances_by_at_least_what_was_slept() {
        let before = monotonic_ns();
        std::thread::sleep(Duration::from_millis(5));
        assert!(monotonic_ns() - before >= 5_000_000);
    }
}
