//! How long messages took from publishing to receiving, as numbers of messages in buckets.
//!
//! A bucket is an eighth of an octave wide, so that a percentile is right to about 6 %: bucket `n` below 16 is for `n` nanoseconds,
//! and from there on every 8 buckets are twice as wide as the 8 before. The last bucket also has everything that took longer, a
//! quarter of an hour.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of buckets.
pub const DELAY_BUCKETS: usize = 304;

/// Where the reader stands, and how long messages took to reach it. Only the reader writes it, and only `stat` uses it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ReaderTimes {
    /// Offset of the header at the cursor.
    pub off: AtomicU64,
    /// Zero.
    pub reserved: [AtomicU64; 7],
    /// In a channel with publish times, the number of messages by the time from publishing to receiving: see the module.
    pub delays: [AtomicU64; DELAY_BUCKETS],
}

/// Buckets in an octave.
const STEPS: u64 = 8;

/// The bucket of a delay.
#[inline]
fn bucket(ns: u64) -> usize {
    let octave = (ns | STEPS).ilog2() - STEPS.ilog2();
    let bucket = u64::from(octave) * STEPS + (ns >> octave);
    (bucket as usize).min(DELAY_BUCKETS - 1)
}

/// A time in the middle of a bucket, in nanoseconds.
fn middle(bucket: usize) -> u64 {
    let octave = (bucket as u64 / STEPS).saturating_sub(1);
    let begin = (bucket as u64 - octave * STEPS) << octave;
    begin + (1 << octave) / 2
}

/// Counts one message. Only one process stores.
#[inline]
pub(crate) fn count(delays: &[AtomicU64; DELAY_BUCKETS], ns: u64) {
    let bucket = &delays[bucket(ns)];
    bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// Delays of messages, for percentiles.
#[derive(Clone, Debug)]
pub struct Delays([u64; DELAY_BUCKETS]);

impl Delays {
    /// What a reader has counted. The reader may be hostile, so the numbers may be anything.
    #[must_use]
    pub fn of(delays: &[AtomicU64; DELAY_BUCKETS]) -> Self {
        Delays(std::array::from_fn(|n| delays[n].load(Ordering::Relaxed)))
    }

    /// The number of messages.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The time in nanoseconds that `part` of the messages did not exceed, or `None` without messages.
    #[must_use]
    pub fn percentile(&self, part: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((count as f64 * part).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0u64;
        self.0
            .iter()
            .position(|n| {
                seen = seen.saturating_add(*n);
                seen >= rank
            })
            .map(middle)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn counted(times: &[u64]) -> Delays {
        let delays = std::array::from_fn(|_| AtomicU64::new(0));
        times.iter().for_each(|ns| count(&delays, *ns));
        Delays::of(&delays)
    }

    #[test]
    fn buckets_follow_one_another_and_stand_for_their_times() {
        let mut last = 0;
        for ns in (0..5000).chain((13..40).flat_map(|bits| [(1 << bits) - 1, 1 << bits, 3 << (bits - 1)])) {
            let found = bucket(ns);
            assert!(found == last || found == last + 1 || ns > 5000, "{ns}: {last}, {found}");
            let stands_for = middle(found);
            assert!(stands_for.abs_diff(ns) * 16 <= ns, "{ns} is in bucket {found}, which stands for {stands_for}");
            last = found;
        }
        assert_eq!([1 << 40, u64::MAX].map(bucket), [DELAY_BUCKETS - 1; 2]);
        assert!(bucket((1 << 40) - 1) == DELAY_BUCKETS - 1 && bucket(15 << 36) == DELAY_BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        assert_eq!(counted(&[]).percentile(0.5), None);
        assert_eq!(counted(&[7]).percentile(0.99), Some(7));
        let delays = counted(&[vec![100; 98], vec![5_000_000; 2]].concat());
        assert_eq!((delays.count(), delays.percentile(0.5)), (100, Some(100)));
        let p99 = delays.percentile(0.99).unwrap();
        assert!(p99.abs_diff(5_000_000) < 400_000, "{p99}");
    }

    #[test]
    fn numbers_that_a_hostile_reader_wrote_overflow_nothing() {
        let delays = Delays([u64::MAX; DELAY_BUCKETS]);
        assert_eq!(delays.count(), u64::MAX);
        assert!(delays.percentile(0.5).is_some());
    }
}
