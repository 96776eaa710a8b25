//! What a reader has not received.

/// Messages lost, and numbers left out.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The first message that could be received.
    first: u64,
    lost: u64,
    /// Lost just before message `found`.
    lost_before: u64,
    /// The message after the last loss.
    found: u64,
    /// Numbers left out with a broken segment, just before this message.
    skipped: (u64, u64),
}

impl Losses {
    /// Begins anew: message `first` is the first that can be received, and nothing is lost.
    pub(super) fn begin(&mut self, first: u64) {
        *self = Losses { first, ..Losses::default() };
    }

    /// Message `first` is the first that can be received, whatever was left out before.
    pub(super) fn begin_at(&mut self, first: u64) {
        self.first = first;
        self.skipped = (0, 0);
    }

    /// So many messages from number `seq` on are lost.
    pub(super) fn lose(&mut self, seq: u64, lost: u64) {
        if lost > 0 {
            self.lost += lost;
            self.lost_before = if self.found == seq { self.lost_before + lost } else { lost };
            self.found = seq + lost;
        }
    }

    /// What was lost before the present message has been told with it; the next one tells what was lost since.
    pub(super) fn told(&mut self) {
        self.found = u64::MAX;
    }

    /// A broken segment was left at message `from`, and message `to` is the next. How many messages there were in between nobody
    /// knows, so they count as no loss: it is `lost`, what it was before.
    pub(super) fn skip(&mut self, from: u64, to: u64, lost: u64) {
        let skipped = to.saturating_sub(from);
        (self.lost, self.lost_before) = (lost, 0);
        self.first += skipped;
        self.skipped = (skipped, to);
    }

    /// Messages lost altogether.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Messages lost just before message `seq`.
    pub(super) fn lost_before(&self, seq: u64) -> u64 {
        if self.found == seq { self.lost_before } else { 0 }
    }

    /// Numbers left out just before message `seq`.
    pub(super) fn skipped_before(&self, seq: u64) -> u64 {
        let (skipped, before) = self.skipped;
        if before == seq { skipped } else { 0 }
    }

    /// Messages received before number `seq`: every message since the first was either received or lost.
    pub(super) fn received(&self, seq: u64) -> u64 {
        (seq - self.first).saturating_sub(self.lost)
    }
}
