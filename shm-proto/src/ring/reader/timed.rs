//! When messages were published and how long they take to come to a reader, in a channel with publish times.

use std::time::SystemTime;

use super::position::Found;
use super::{Joined, Message, Reader};
use crate::os::clock::{self, monotonic_ns};

impl Message<'_> {
    /// [The same](Self::published_ns) as a date, by what the machine's clock says now. So the dates of messages keep their
    /// distances when the clock is set between two of them.
    #[must_use]
    pub fn published(&self) -> Option<SystemTime> {
        self.published_ns().map(clock::date)
    }
}

impl Reader {
    /// [The record at hand](Self::at_hand) in a channel with publish times.
    pub(super) fn timed_at_hand(&mut self) -> Option<Found> {
        if self.joined != Joined::Timed {
            return None;
        }
        let found = self.position.at_hand()?;
        // What a former writer has stored is for `next_record` to judge.
        if !self.is_settled() {
            return None;
        }
        self.count_delay(found);
        Some(found)
    }

    /// Counts how long the record at the current place took to come here, once, although a program may look at it again.
    pub(super) fn count_delay(&mut self, found: Found) {
        let seq = self.seq();
        if seq < self.timed {
            return;
        }
        // The look at the floor comes after the load of the time: a record that was overwritten has another's.
        if let Some(published) = self.position.time(&found)
            && (self.is_settled() || !self.position.is_passed())
        {
            self.timed = seq + 1;
            self.page.count_delay(monotonic_ns().saturating_sub(published));
        }
    }
}
