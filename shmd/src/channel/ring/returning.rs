//! Readers of a dead daemon, which this daemon does not know until they come back: (state, event) -> (state, what
//! follows). Pure.
//!
//! The dead daemon has noted how many readers there were, and their pages: a reader that shows another page was not one
//! of them. A writer that begins before they are back gives up no space for a while.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a writer waits for them if the ring is full. A reader asks a few dozen times per second, unless it is
/// stopped.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Returning {
    missing: u64,
    /// The inode numbers of their pages.
    pages: BTreeSet<u64>,
    until: Option<Instant>,
}

impl Returning {
    /// Notes that this many readers were attached, with these pages. If `waits` is false, they are recognised but not
    /// waited for.
    pub(super) fn expect(missing: u64, pages: BTreeSet<u64>, waits: bool) -> Self {
        Self { missing: if waits { missing } else { 0 }, pages, until: None }
    }

    /// The number of readers that have not come back and are still waited for.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// The inode numbers of the pages of readers that have not come back.
    pub(super) fn pages(&self) -> impl Iterator<Item = u64> {
        self.pages.iter().copied()
    }

    /// A writer is about to begin: the time of the missing readers starts now. Returns its end, if any reader is
    /// missing.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Instant> {
        (self.missing > 0).then(|| *self.until.get_or_insert(now + GRACE))
    }

    /// A reader with this page is attached. Returns whether it is one of those that were expected.
    pub(super) fn came(&mut self, page: u64) -> bool {
        let is_one = self.pages.remove(&page);
        if is_one {
            self.missing = self.missing.saturating_sub(1);
        }
        is_one
    }

    /// Stops waiting for them. Returns the number of readers that have not come.
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
