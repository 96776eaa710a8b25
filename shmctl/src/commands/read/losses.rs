//! What was lost, said when it happens but not in a flood.

use std::time::{Duration, Instant};

use crate::error::note;
use crate::human::messages;

/// Said at most this often while messages keep coming.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts lost messages and says so on standard error.
#[derive(Debug, Default)]
pub(super) struct Losses {
    total: u64,
    untold: u64,
    told_at: Option<Instant>,
}

impl Losses {
    /// So many messages before message `seq` were lost.
    pub(super) fn add(&mut self, lost: u64, seq: u64) {
        self.total += lost;
        self.untold += lost;
        if self.told_at.is_none_or(|told| told.elapsed() >= INTERVAL) {
            self.tell_before(&format!(" before message {seq}"));
        }
    }

    /// Says what was not said yet: there is time.
    pub(super) fn tell(&mut self) {
        if self.untold > 0 {
            self.tell_before("");
        }
    }

    /// All that were lost.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn tell_before(&mut self, place: &str) {
        note(&format!("{}{place}", messages(self.untold, "lost")));
        self.untold = 0;
        self.told_at = Some(Instant::now());
    }
}
