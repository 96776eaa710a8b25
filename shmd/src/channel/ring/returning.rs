//! Readers of a dead daemon, which this daemon does not know until they come back: (state, event) -> (state, what
//! follows). Pure.
//!
//! The dead daemon has noted how many readers there were, and their pages: a reader that shows another page was not one
//! of them. A writer that begins before they are back gives up no space for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shm_proto::internal::ring::{NotedReader, NotedReaders};

/// How long a writer waits for them if the ring is full. A reader asks a few dozen times per second, unless it is
/// stopped.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Returning {
    missing: u64,
    /// The inode numbers of their pages, and the numbers of their processes, 0 if they are not known.
    pages: BTreeMap<u64, u32>,
    /// None of these processes started later, in clock ticks after boot.
    noted_at: u64,
    until: Option<Instant>,
}

impl Returning {
    /// Notes that this many readers were attached, among them these. If `waits` is false, they are recognised but not
    /// waited for.
    pub(super) fn expect(missing: u64, readers: &NotedReaders, waits: bool) -> Self {
        let pages = readers.iter().map(|NotedReader { page, pid }| (page, pid)).collect();
        Self { missing: if waits { missing } else { 0 }, pages, noted_at: readers.noted_at(), until: None }
    }

    /// The number of readers that have not come back and are still waited for.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// The readers that have not come back, as far as they are known.
    pub(super) fn readers(&self) -> impl Iterator<Item = NotedReader> {
        self.pages.iter().map(|(&page, &pid)| NotedReader { page, pid })
    }

    /// Takes out the readers whose processes have ended, by `has_ended(pid, since)`. Returns their number.
    pub(super) fn bury(&mut self, has_ended: impl Fn(u32, u64) -> bool) -> u64 {
        let before = self.pages.len();
        self.pages.retain(|_, pid| *pid == 0 || !has_ended(*pid, self.noted_at));
        let ended = (before - self.pages.len()) as u64;
        self.missing = self.missing.saturating_sub(ended);
        ended
    }

    /// A writer is about to begin: the time of the missing readers starts now. Returns its end, if any reader is
    /// missing.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Instant> {
        (self.missing > 0).then(|| *self.until.get_or_insert(now + GRACE))
    }

    /// Whether a reader with this page may come back.
    pub(super) fn expects(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// A reader with this page is attached. Returns whether it is one of those that were expected.
    pub(super) fn came(&mut self, page: u64) -> bool {
        let is_one = self.pages.remove(&page).is_some();
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
        let readers = pages.iter().map(|&page| NotedReader { page, pid: page as u32 }).collect();
        Returning::expect(pages.len() as u64, &NotedReaders::new(readers, 100), true)
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
        assert!(returning.expects(7) && !returning.expects(9));
        assert!(!returning.came(9) && returning.came(7) && !returning.came(7) && !returning.expects(7));
        assert_eq!(returning.missing(), 1);
    }

    #[test]
    fn nobody_waits_for_the_dead_and_an_unknown_process_is_not_dead() {
        let mut returning = expect(&[7, 8]);
        returning.pages.insert(9, 0);
        returning.missing = 3;
        assert_eq!(returning.bury(|pid, since| pid != 7 && since == 100), 1);
        assert_eq!((returning.missing(), returning.came(8), returning.missing()), (2, false, 2));
        assert_eq!(returning.bury(|_, _| true), 1);
        assert_eq!((returning.missing(), returning.readers().count()), (1, 1));
    }

    #[test]
    fn those_that_do_not_come_are_counted_once_and_known_later() {
        let mut returning = expect(&[7, 8, 9]);
        assert!(returning.came(7));
        assert_eq!((returning.give_up(), returning.give_up(), returning.missing()), (2, 0, 0));
        assert!(returning.came(8) && returning.missing() == 0);
    }
}
