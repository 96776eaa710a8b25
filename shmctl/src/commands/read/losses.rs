//! Reports losses when they happen, at a limited rate.

use std::time::{Duration, Instant};

use crate::error::note;
use crate::human::messages;

/// The shortest time between two reports while messages keep coming.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts lost messages and reports them on standard error.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// What stands before a report: the channel, if there are several.
    label: String,
    total: u64,
    untold: u64,
    told_at: Option<Instant>,
}

impl Losses {
    pub(super) fn labelled(label: String) -> Self {
        Losses { label, ..Losses::default() }
    }

    /// `lost` messages before message `seq` were lost.
    pub(super) fn add(&mut self, lost: u64, seq: u64) {
        self.total += lost;
        self.untold += lost;
        if self.told_at.is_none_or(|told| told.elapsed() >= INTERVAL) {
            self.tell_before(&format!(" before message {seq}"));
        }
    }

    /// Reports the losses that were not reported yet.
    pub(super) fn tell(&mut self) {
        if self.untold > 0 {
            self.tell_before("");
        }
    }

    /// All lost messages.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn tell_before(&mut self, place: &str) {
        note(&format!("{}{}{place}", self.label, messages(self.untold, "lost")));
        self.untold = 0;
        self.told_at = Some(Instant::now());
    }
}
