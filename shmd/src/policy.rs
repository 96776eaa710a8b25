//! When a channel grows or shrinks, and to what size: pure, so that it is tested without a process.
//!
//! Sizes are bytes of the data area; everything handed out is a multiple of a page.

use std::time::{Duration, Instant};

use shm_proto::internal::os::page::PAGE_SIZE;

/// What the kernel gives memory in, in bytes.
pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// The sizes a channel may have, in bytes; both multiples of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Smallest capacity.
    pub(crate) min: u64,
    /// Largest capacity.
    pub(crate) max: u64,
}

impl Bounds {
    /// `asked`, rounded up to whole pages, if the channel may have that size.
    pub(crate) fn fit(self, asked: u64) -> Option<u64> {
        let size = page_multiple(asked)?;
        (self.min..=self.max).contains(&size).then_some(size)
    }

    /// The next size for a writer that needs `asked`: doubling, at most `max`; `None` when `max` does not help either.
    ///
    /// If `free` more bytes do not cover the doubling, the result is what was asked for.
    pub(crate) fn grown(self, capacity: u64, asked: u64, free: u64) -> Option<u64> {
        let asked = page_multiple(asked)?;
        if asked > self.max || capacity >= self.max {
            return None;
        }
        let mut size = capacity.max(PAGE);
        while size < asked || size == capacity {
            size = size.saturating_mul(2);
        }
        let size = size.min(self.max);
        Some(if size - capacity > free && asked > capacity { asked } else { size })
    }

    /// The smallest size, by halving, in which `peak` used bytes still fill at most half.
    pub(crate) fn shrunk(self, capacity: u64, peak: u64) -> Option<u64> {
        let mut size = capacity;
        while size > self.min {
            let Some(half) = page_multiple(size / 2).map(|half| half.max(self.min)) else { break };
            if half >= size || peak > half / 2 {
                break;
            }
            size = half;
        }
        (size < capacity).then_some(size)
    }
}

/// `bytes` rounded up to whole pages, unless that is more than can be counted.
fn page_multiple(bytes: u64) -> Option<u64> {
    bytes.max(1).checked_next_multiple_of(PAGE)
}

/// Watches a channel's use for the time to give memory back.
#[derive(Debug, Default)]
pub(crate) struct LowUse {
    since: Option<Instant>,
    peak: u64,
}

impl LowUse {
    /// Takes a sample. After `shrink_after` in which no sample reached a quarter of the capacity: the size to shrink to.
    pub(crate) fn sample(
        &mut self,
        now: Instant,
        bounds: Bounds,
        capacity: u64,
        used: u64,
        shrink_after: Duration,
    ) -> Option<u64> {
        if capacity <= bounds.min || used >= capacity / 4 {
            self.reset();
            return None;
        }
        let since = *self.since.get_or_insert(now);
        self.peak = self.peak.max(used);
        if now.saturating_duration_since(since) < shrink_after {
            return None;
        }
        let target = bounds.shrunk(capacity, self.peak);
        self.reset();
        target
    }

    /// The channel is in use: begins again.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const BOUNDS: Bounds = Bounds { min: 64 << 10, max: 256 * MIB };

    #[test]
    fn a_pressed_channel_doubles() {
        assert_eq!(BOUNDS.grown(MIB, MIB + 1, u64::MAX), Some(2 * MIB));
        assert_eq!(BOUNDS.grown(MIB, 5 * MIB, u64::MAX), Some(8 * MIB));
        assert_eq!(BOUNDS.grown(MIB, 1, u64::MAX), Some(2 * MIB));
    }

    #[test]
    fn growth_ends_at_the_maximum() {
        assert_eq!(BOUNDS.grown(200 * MIB, 201 * MIB, u64::MAX), Some(256 * MIB));
        assert_eq!(BOUNDS.grown(256 * MIB, 256 * MIB, u64::MAX), None);
        assert_eq!(BOUNDS.grown(MIB, 257 * MIB, u64::MAX), None);
    }

    #[test]
    fn where_doubling_does_not_fit_what_was_asked_for_is_tried() {
        assert_eq!(BOUNDS.grown(16 * MIB, 17 * MIB, 2 * MIB), Some(17 * MIB));
    }

    #[test]
    fn an_asked_size_is_rounded_up_to_pages_and_refused_outside_the_bounds() {
        assert_eq!(BOUNDS.fit(MIB + 1), Some(MIB + PAGE));
        assert_eq!(BOUNDS.fit(1), None);
        assert_eq!(BOUNDS.fit(u64::MAX), None);
        assert_eq!(BOUNDS.fit(256 * MIB + 1), None);
    }

    #[test]
    fn memory_is_given_back_only_after_the_whole_time_of_low_use() {
        let mut low = LowUse::default();
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        assert_eq!(low.sample(start, BOUNDS, 8 * MIB, 0, minute), None);
        assert_eq!(low.sample(start + minute / 2, BOUNDS, 8 * MIB, 3 * MIB, minute), None);
        assert_eq!(low.sample(start + minute, BOUNDS, 8 * MIB, 0, minute), None);
        assert_eq!(low.sample(start + minute * 2, BOUNDS, 8 * MIB, MIB, minute), Some(2 * MIB));
    }

    proptest! {
        #[test]
        fn growth_is_larger_whole_pages_within_bounds(cap in 1u64..=65_536, asked in 0u64..=u64::MAX, free in any::<u64>()) {
            let capacity = cap * PAGE;
            if let Some(size) = BOUNDS.grown(capacity, asked, free) {
                prop_assert!(size > capacity && size <= BOUNDS.max && size % PAGE == 0 && size >= asked);
            }
        }

        #[test]
        fn a_shrink_leaves_twice_the_peak_and_stays_within_bounds(cap in 16u64..=65_536, peak in 0u64..=512 * MIB) {
            let capacity = cap * PAGE;
            if let Some(size) = BOUNDS.shrunk(capacity, peak) {
                prop_assert!(size < capacity && size >= BOUNDS.min && size % PAGE == 0 && peak <= size / 2);
            }
        }

        #[test]
        fn an_unused_channel_always_ends_at_the_minimum(cap in 17u64..=65_536) {
            prop_assert_eq!(BOUNDS.shrunk(cap * PAGE, 0), Some(BOUNDS.min));
        }
    }
}
