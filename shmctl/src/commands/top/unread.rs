//! How old a reader's oldest unread message is at least, from counters alone.
//!
//! A message that is unread now and had been published at an earlier look at the daemon is at least as old as that look. A channel
//! without publish times says no more than that about ages.

use std::collections::VecDeque;
use std::time::Instant;

/// The largest number of looks that are remembered.
const MOST: usize = 512;

/// For one reader: looks, each with the number of messages that had been published by then. Those whose messages the reader has all
/// read are forgotten.
#[derive(Debug, Default)]
pub(super) struct Unread {
    looks: VecDeque<(Instant, u64)>,
}

impl Unread {
    /// At this moment `published` messages have been published, and the reader has passed all but `lag` of them.
    pub(super) fn look(&mut self, at: Instant, published: u64, lag: u64) {
        if self.looks.back().is_some_and(|(_, before)| published < *before) {
            // Another segment counts from 0.
            self.looks.clear();
        }
        if self.looks.back().is_none_or(|(_, before)| published > *before) {
            self.looks.push_back((at, published));
        }
        let passed = published.saturating_sub(lag);
        while self.looks.front().is_some_and(|(_, by_then)| *by_then <= passed) {
            self.looks.pop_front();
        }
        if self.looks.len() > MOST {
            // Without some looks the ages are less exact, and still not too large.
            let mut number = 0;
            self.looks.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
    }

    /// The earliest look at which the oldest unread message had been published; none if the reader has read everything.
    pub(super) fn since(&self) -> Option<Instant> {
        self.looks.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The least age in seconds after looks that are a second apart.
    fn age(looks: &[(u64, u64)]) -> Option<u64> {
        let (begin, mut unread) = (Instant::now(), Unread::default());
        let at = |second: usize| begin + Duration::from_secs(second as u64);
        for (second, (published, lag)) in looks.iter().enumerate() {
            unread.look(at(second), *published, *lag);
        }
        unread.since().map(|since| at(looks.len() - 1).duration_since(since).as_secs())
    }

    #[test]
    fn a_message_is_as_old_as_the_first_look_that_had_it() {
        assert_eq!(age(&[(10, 0)]), None);
        assert_eq!(age(&[(10, 4)]), Some(0));
        assert_eq!(age(&[(10, 4), (20, 14), (30, 24)]), Some(2));
        // The messages of the first look have been read, those of the second have not.
        assert_eq!(age(&[(10, 4), (20, 14), (30, 15)]), Some(1));
        // Nobody publishes, and the reader has begun.
        assert_eq!(age(&[(10, 4), (10, 3), (10, 1)]), Some(2));
    }

    #[test]
    fn a_reader_that_keeps_up_has_young_messages_though_it_always_has_some() {
        assert_eq!(age(&[(10, 5), (20, 5), (30, 5), (40, 5)]), Some(0));
        assert_eq!(age(&[(10, 5), (20, 15), (30, 0)]), None);
    }

    #[test]
    fn another_segment_begins_anew() {
        assert_eq!(age(&[(1000, 900), (2000, 1900), (7, 5), (8, 6)]), Some(1));
    }

    #[test]
    fn what_is_remembered_has_an_end_and_no_age_is_too_large() {
        let looks: Vec<(u64, u64)> = (1..5000).map(|second| (second, second)).collect();
        assert_eq!(age(&looks), Some(4998));
        let (begin, mut unread) = (Instant::now(), Unread::default());
        let at = |second: u64| begin + Duration::from_secs(second);
        for second in 1..5000 {
            unread.look(at(second), second, second);
            assert!(unread.looks.len() <= MOST);
        }
        // Message number n is published in second n, and no message is older than the time since then.
        for passed in (0..4999).step_by(7) {
            unread.look(at(5000), 5000, 5000 - passed);
            assert!(at(5000).duration_since(unread.since().unwrap()).as_secs() < 5000 - passed, "{passed}");
        }
    }
}
