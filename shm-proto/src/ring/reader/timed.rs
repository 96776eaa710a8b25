//! How long messages take to come to a reader, in a channel with publish times.

use super::Reader;
use super::position::Found;
use crate::os::clock::monotonic_ns;

impl Reader {
    /// Counts how long the message at the current place took to come here, once, although a program may look at it again.
    #[inline(never)]
    pub(super) fn count_delay(&mut self, found: &Found) {
        let seq = self.seq();
        if seq < self.timed {
            return;
        }
        self.timed = seq + 1;
        if let Some(published) = self.position.time(found) {
            self.page.count_delay(monotonic_ns().saturating_sub(published));
        }
    }
}
