//! What a reader has not received.

/// Messages lost, and numbers skipped.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The first message that this reader could receive.
    first: u64,
    /// The program has the messages before this one from an earlier attachment.
    known: u64,
    lost: u64,
    /// Messages lost just before message `found`.
    lost_before: u64,
    /// The message after the last loss.
    found: u64,
    /// How many numbers were skipped with a broken segment, and the message just after them.
    skipped: (u64, u64),
}

impl Losses {
    /// Starts again: message `first` is the first that can be received, and nothing is lost.
    pub(super) fn begin(&mut self, first: u64) {
        *self = Losses { first, ..Losses::default() };
    }

    /// Message `first` is the first that can be received, whatever was skipped before.
    pub(super) fn begin_at(&mut self, first: u64) {
        self.first = first;
        self.skipped = (0, 0);
    }

    /// Continues an earlier attachment, after which message `next` was expected. This reader stands at message `seq`.
    /// The messages between are lost, but this attachment did not lose them.
    pub(super) fn go_on(&mut self, next: u64, seq: u64) {
        self.begin(next.max(seq));
        self.known = next;
        (self.lost_before, self.found) = (seq.saturating_sub(next), seq);
    }

    /// Whether the program has message `seq` from an earlier attachment.
    pub(super) fn knows(&self, seq: u64) -> bool {
        seq < self.known
    }

    /// The message with which a later attachment continues if this one ends before it has received message `seq`. Every
    /// earlier message was received, or its loss was reported.
    pub(super) fn next(&self, seq: u64) -> u64 {
        (seq - self.lost_before(seq)).max(self.known)
    }

    /// Counts `lost` messages from number `seq` on as lost, except for known ones.
    pub(super) fn lose(&mut self, seq: u64, lost: u64) {
        if lost > 0 {
            let after = seq + lost;
            let lost = after.saturating_sub(seq.max(self.known));
            self.lost += lost;
            self.lost_before = if self.found == seq { self.lost_before + lost } else { lost };
            self.found = after;
        }
    }

    /// Notes that the losses before the current message have been reported with it. The next message reports only later
    /// losses.
    pub(super) fn told(&mut self) {
        self.found = u64::MAX;
    }

    /// A broken segment was left at message `from`, and message `to` is the next. It is not known how many messages
    /// there were in between, so they do not count as lost: `before` is what was [lost](Self::so_far) earlier.
    pub(super) fn skip(&mut self, from: u64, to: u64, before: (u64, u64)) {
        let skipped = to.saturating_sub(from.max(self.known));
        (self.lost, self.lost_before) = before;
        self.found = to;
        self.first += skipped;
        self.skipped = (skipped, to);
    }

    /// Total number of messages lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Total number of messages lost, and the number lost just before message `seq`.
    pub(super) fn so_far(&self, seq: u64) -> (u64, u64) {
        (self.lost, self.lost_before(seq))
    }

    /// Messages lost just before message `seq`.
    #[inline(always)]
    pub(super) fn lost_before(&self, seq: u64) -> u64 {
        if self.found == seq { self.lost_before } else { 0 }
    }

    /// Numbers skipped just before message `seq`.
    #[inline(always)]
    pub(super) fn skipped_before(&self, seq: u64) -> u64 {
        let (skipped, before) = self.skipped;
        if before == seq { skipped } else { 0 }
    }

    /// Messages received before number `seq`: every message since the first was either received or lost.
    pub(super) fn received(&self, seq: u64) -> u64 {
        seq.saturating_sub(self.first).saturating_sub(self.lost)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Losses of a reader that goes on with message `next` and stands at message `seq`.
    fn going_on(next: u64, seq: u64) -> Losses {
        let mut losses = Losses::default();
        losses.begin(seq);
        losses.go_on(next, seq);
        losses
    }

    #[test]
    fn known_messages_are_neither_received_nor_lost() {
        let mut losses = going_on(10, 3);
        assert!(losses.knows(9) && !losses.knows(10));
        assert_eq!((losses.received(7), losses.next(7)), (0, 10));
        // The floor passes the reader at message 7: of 7 to 19, the program has 7, 8 and 9.
        losses.lose(7, 13);
        assert_eq!((losses.lost_before(20), losses.lost(), losses.received(20)), (10, 10, 0));
        assert_eq!((losses.received(25), losses.next(25)), (5, 25));
        // Known messages alone are no loss.
        let mut losses = going_on(10, 3);
        losses.lose(3, 5);
        assert_eq!((losses.lost_before(8), losses.lost(), losses.next(8)), (0, 0, 10));
    }

    #[test]
    fn what_lies_between_two_attachments_is_lost_before_the_first_message_of_the_second() {
        let mut losses = going_on(10, 14);
        assert_eq!((losses.lost_before(14), losses.lost(), losses.received(14)), (4, 0, 0));
        // The next attachment continues with the same message if this one ends before it has received any.
        assert_eq!(losses.next(14), 10);
        losses.lose(14, 2);
        assert_eq!((losses.lost_before(16), losses.lost(), losses.next(16)), (6, 2, 10));
        assert_eq!((losses.received(20), losses.next(20)), (4, 20));
    }

    #[test]
    fn what_was_told_with_a_message_is_not_told_again() {
        let mut losses = Losses::default();
        losses.begin(0);
        losses.lose(5, 3);
        // Message 8 has told of the three, and was overwritten while it was read.
        losses.told();
        losses.lose(8, 2);
        assert_eq!((losses.lost_before(10), losses.lost(), losses.next(10)), (2, 5, 8));
    }

    #[test]
    fn numbers_left_out_with_a_broken_segment_count_as_no_loss() {
        let mut losses = Losses::default();
        losses.begin(0);
        losses.lose(5, 3);
        let before = losses.so_far(8);
        losses.lose(8, 12);
        losses.skip(8, 20, before);
        assert_eq!((losses.skipped_before(20), losses.lost_before(20), losses.lost()), (12, 3, 3));
        assert_eq!(losses.received(21), 6, "0 to 4, and 20");
        // Numbers of messages that the program already has do not count as skipped.
        let mut losses = going_on(10, 3);
        losses.skip(3, 15, losses.so_far(3));
        assert_eq!((losses.skipped_before(15), losses.received(16)), (5, 1));
    }
}
