//! Readers of a daemon that died, which this one does not know until they come back: (state, event) -> (state, what follows). Pure.
//!
//! The dead daemon has noted how many there were, and their pages: who shows another page was none of them. A writer that begins before they are back gives nothing up, for a while.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// So long a writer waits for them, when the ring is full. A reader asks some dozen times a second, unless it is stopped.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Returning {
    missing: u64,
    /// The numbers of their pages' files.
    pages: BTreeSet<u64>,
    until: Option<Instant>,
}

impl Returning {
    /// So many were attached, with these pages. They are waited for, or only known again.
    pub(super) fn expect(missing: u64, pages: BTreeSet<u64>, waits: bool) -> Self {
        Self { missing: if waits { missing } else { 0 }, pages, until: None }
    }

    /// How many have not come back, as long as they are waited for.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// The numbers of the files of their pages, as far as they have not come back.
    pub(super) fn pages(&self) -> impl Iterator<Item = u64> {
        self.pages.iter().copied()
    }

    /// Somebody is going to write: from now on they have so much time. Until when, if somebody is missing.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Instant> {
        (self.missing > 0).then(|| *self.until.get_or_insert(now + GRACE))
    }

    /// A reader with this page is attached. Whether it is one of them that has come back.
    pub(super) fn came(&mut self, page: u64) -> bool {
        let is_one = self.pages.remove(&page);
        if is_one {
            self.missing = self.missing.saturating_sub(1);
        }
        is_one
    }

    /// They are waited for no longer. How many have not come.
    pub(super) fn give_up(&mut self) -> u64 {
        std::mem::take(&mut self.missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(pages: &[u64]) -> Returning {
        Returning::expect(pages.len() as u64, pages.iter().copied().collect(), true)
    }

    #[test]
    fn the_time_begins_with_the_first_writer_and_ends_with_the_last_reader() {
        let now = Instant::now();
        let mut returning = expect(&[7, 8]);
        let until = returning.begin(now).unwrap();
        assert_eq!(returning.begin(now + GRACE / 2), Some(until), "another writer gives them no more time");
        assert!(returning.came(7) && returning.missing() == 1);
        assert!(returning.came(8) && returning.missing() == 0);
        assert_eq!((returning.begin(now), returning.give_up()), (None, 0));
    }

    #[test]
    fn whoever_was_none_of_them_or_comes_twice_does_not_count() {
        let mut returning = expect(&[7, 8]);
        assert!(!returning.came(9) && returning.came(7) && !returning.came(7));
        assert_eq!(returning.missing(), 1);
    }

    #[test]
    fn those_that_do_not_come_are_counted_once_and_known_later() {
        let mut returning = expect(&[7, 8, 9]);
        assert!(returning.came(7));
        assert_eq!((returning.give_up(), returning.give_up(), returning.missing()), (2, 0, 0));
        assert!(returning.came(8) && returning.missing() == 0);
    }
}
