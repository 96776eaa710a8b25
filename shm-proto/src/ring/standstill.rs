//! When a reader that holds up the writer is asked for its cursor, and when it is evicted: pure.
//!
//! A reader publishes its cursor in steps, so a cursor that does not change proves nothing by itself. The reader is
//! therefore [asked](super::wake::ask_for_cursor) to publish its cursor after its current message. Only the time after
//! that request counts: a reader that passes one message within `evict_after` is never evicted, however slow it is.
//!
//! A wait counts for no longer than it was planned to take. Otherwise, a machine or a program that was stopped for an
//! hour would evict every reader when it continues.

/// A reader is asked after the writer has waited for it for this long, and then again at this interval; sooner if
/// `evict_after` is short.
const ASK_EVERY_NS: u64 = 100_000_000;
/// The interval is at most this fraction of `evict_after`, and so is the time that counts between two refused messages.
const PARTS: u64 = 4;

/// How long a reader of a channel may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// 0: readers are asked and never evicted.
    evict_after_ns: u64,
}

impl Limit {
    /// The limit of a channel with this `evict_after`; 0 for never.
    #[must_use]
    pub fn new(evict_after_ms: u64) -> Limit {
        Limit { evict_after_ns: evict_after_ms.saturating_mul(1_000_000) }
    }

    fn ask_every_ns(self) -> u64 {
        match self.evict_after_ns {
            0 => ASK_EVERY_NS,
            evict_after => (evict_after / PARTS).clamp(1, ASK_EVERY_NS),
        }
    }

    /// The most that counts of the time between two looks if the writer did not wait in between, so that no single look
    /// evicts a reader.
    #[must_use]
    pub fn most_between_looks_ns(self) -> u64 {
        match self.evict_after_ns {
            0 => ASK_EVERY_NS,
            evict_after => (evict_after / PARTS).max(1),
        }
    }
}

/// How long one reader has stood still while the writer waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standstill {
    /// Time spent waiting for the reader since it last moved.
    waited_ns: u64,
    /// The value of `waited_ns` at the first request since.
    asked_ns: Option<u64>,
    /// The value of `waited_ns` at which the next request is due.
    ask_at_ns: Option<u64>,
    /// Messages that found no space since, because of the reader.
    refused: u64,
}

impl Standstill {
    /// The reader has moved: starts again from zero.
    pub fn moved(&mut self) {
        *self = Standstill::default();
    }

    /// Adds a wait in which the reader did not move. Returns whether to ask the reader now.
    #[must_use]
    pub fn waited(&mut self, ns: u64, limit: Limit) -> bool {
        self.waited_ns = self.waited_ns.saturating_add(ns);
        let every = limit.ask_every_ns();
        if self.waited_ns < self.ask_at_ns.unwrap_or(every) {
            return false;
        }
        self.asked();
        self.ask_at_ns = Some(self.waited_ns.saturating_add(every));
        true
    }

    /// Like [`waited`](Self::waited), for a message that was refused or dropped this long after the last look at the
    /// reader.
    #[must_use]
    pub fn refused(&mut self, ns: u64, limit: Limit) -> bool {
        self.refused = self.refused.saturating_add(1);
        self.waited(ns.min(limit.most_between_looks_ns()), limit)
    }

    /// Notes that the reader was asked.
    pub fn asked(&mut self) {
        self.asked_ns.get_or_insert(self.waited_ns);
    }

    /// Time spent waiting for the reader since it was asked.
    #[must_use]
    pub fn stood_ns(&self) -> u64 {
        self.asked_ns.map_or(0, |asked| self.waited_ns - asked)
    }

    /// Whether the reader has stood still for `evict_after`.
    #[must_use]
    pub fn is_over(&self, limit: Limit) -> bool {
        limit.evict_after_ns > 0 && self.asked_ns.is_some() && self.stood_ns() >= limit.evict_after_ns
    }

    /// The time until the reader must be asked or evicted.
    #[must_use]
    pub(crate) fn left_ns(&self, limit: Limit) -> u64 {
        let ask = self.ask_at_ns.unwrap_or(limit.ask_every_ns()).saturating_sub(self.waited_ns);
        match limit.evict_after_ns {
            0 => ask,
            evict_after => ask.min(evict_after.saturating_sub(self.stood_ns())),
        }
    }

    /// Messages that found no space because of the reader since it last moved.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Waits as the writer does, in slices that end when something is due. Returns the times at which the reader was
    /// asked, and the time at which it must be evicted, in milliseconds.
    fn wait(standstill: &mut Standstill, limit: Limit, slice_ms: u64, most_ms: u64) -> (Vec<u64>, Option<u64>) {
        let (mut now, mut asked) = (0, Vec::new());
        while now < most_ms * MS {
            if standstill.is_over(limit) {
                return (asked, Some(now / MS));
            }
            let slice = (slice_ms * MS).min(standstill.left_ns(limit));
            now += slice;
            if standstill.waited(slice, limit) {
                asked.push(now / MS);
            }
        }
        (asked, None)
    }

    #[test]
    fn a_reader_is_asked_first_and_evicted_when_it_has_stood_for_the_whole_time_after() {
        let mut reader = Standstill::default();
        let (asked, over) = wait(&mut reader, Limit::new(1000), 50, 5000);
        assert_eq!((asked[0], asked[1], over), (100, 200, Some(1100)));
        let mut reader = Standstill::default();
        let (asked, over) = wait(&mut reader, Limit::new(20), 50, 5000);
        assert_eq!((asked, over), (vec![5, 10, 15, 20, 25], Some(25)));
    }

    #[test]
    fn a_reader_that_moves_once_in_every_evict_after_is_never_evicted() {
        let limit = Limit::new(1000);
        let mut reader = Standstill::default();
        for _ in 0..100 {
            // The reader moves 999 ms after it was asked, as late as it may.
            let (asked, over) = wait(&mut reader, limit, 50, 100 + 999);
            assert_eq!((asked[0], over), (100, None));
            reader.moved();
        }
    }

    #[test]
    fn the_time_of_several_waits_adds_up() {
        let (limit, mut reader) = (Limit::new(1000), Standstill::default());
        for _ in 0..5 {
            assert_eq!(wait(&mut reader, limit, 50, 200).1, None);
        }
        assert_eq!(wait(&mut reader, limit, 50, 1000).1, Some(100));
        assert_eq!(reader.stood_ns(), 1000 * MS);
    }

    #[test]
    fn nobody_is_evicted_by_one_look_after_a_long_pause() {
        let (limit, mut reader) = (Limit::new(1000), Standstill::default());
        let hour = 3_600_000 * MS;
        let mut refused = 0;
        while !reader.is_over(limit) {
            let asked = reader.refused(hour, limit);
            assert!(asked || refused > 0);
            refused += 1;
        }
        assert_eq!((refused, reader.refusals(), reader.stood_ns()), (5, 5, 1000 * MS));
        reader.moved();
        assert_eq!((reader.refusals(), reader.is_over(limit)), (0, false));
    }

    #[test]
    fn without_a_limit_a_reader_is_asked_and_stays() {
        let mut reader = Standstill::default();
        let (asked, over) = wait(&mut reader, Limit::new(0), 50, 100_000);
        assert_eq!((asked.len(), over), (1000, None));
    }

    #[test]
    fn who_was_asked_before_the_wait_has_the_whole_time_from_there() {
        let mut reader = Standstill::default();
        reader.asked();
        assert_eq!(wait(&mut reader, Limit::new(1000), 50, 5000).1, Some(1000));
    }
}
