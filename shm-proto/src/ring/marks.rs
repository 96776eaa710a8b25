//! Record boundaries at intervals, so that the floor can move without a walk over every record.

use std::collections::VecDeque;

use super::published::Place;
use crate::ring::geometry::OnFull;

const MOST: usize = 128;
/// The smallest number of bytes between two marks. Below that, walking costs no more.
const LEAST_INTERVAL: u64 = 4096;
/// The number of intervals in the capacity. A publish that makes a mark takes about 150 ns longer, so fewer than one in
/// a hundred small messages should make a mark. On the other hand, overwriting frees one interval at a time.
const PARTS: u64 = 8;
const PARTS_TO_OVERWRITE: u64 = 64;

/// Boundaries between floor and tail, oldest first.
#[derive(Debug)]
pub(super) struct Marks {
    places: VecDeque<Place>,
    parts: u64,
    interval: u64,
    last: u64,
}

impl Marks {
    pub(super) fn new(capacity: u64, on_full: OnFull, tail: Place) -> Marks {
        let parts = if on_full == OnFull::Overwrite { PARTS_TO_OVERWRITE } else { PARTS };
        let mut marks = Marks { places: VecDeque::with_capacity(MOST), parts, interval: 0, last: tail.pos };
        marks.fit(capacity);
        marks
    }

    /// Chooses the interval for a capacity.
    pub(super) fn fit(&mut self, capacity: u64) {
        self.interval = (capacity / self.parts).max(LEAST_INTERVAL);
    }

    pub(super) fn interval(&self) -> u64 {
        self.interval
    }

    /// Notes a boundary if the last one is an interval or more away.
    pub(super) fn note(&mut self, tail: Place) {
        if tail.pos - self.last < self.interval {
            return;
        }
        if self.places.len() == MOST {
            let mut keep = false;
            self.places.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.places.push_back(tail);
        self.last = tail.pos;
    }

    /// The oldest boundary after `floor`.
    pub(super) fn after(&mut self, floor: u64) -> Option<Place> {
        while self.places.front().is_some_and(|place| place.pos <= floor) {
            self.places.pop_front();
        }
        self.places.front().copied()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn many_marks_thin_out_and_stay_in_order() {
        let mut marks = Marks::new(4096, OnFull::Block, Place::default());
        for i in 1..=1000u64 {
            let place = Place { pos: i * 5000, off: 0, seq: i, bytes: 0 };
            marks.note(place);
            let noted = marks.places.len();
            marks.note(place);
            assert_eq!(marks.places.len(), noted, "twice at one place");
        }
        let mut floor = 0;
        let mut seen = 0;
        while let Some(mark) = marks.after(floor) {
            assert!(mark.pos > floor);
            floor = mark.pos;
            seen += 1;
        }
        assert!((2..=MOST).contains(&seen));
        assert_eq!(floor, 5_000_000);
    }
}
