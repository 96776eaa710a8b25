//! A message that is not acknowledged in time, or not wanted any more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Offer, Progress, Writer};
use crate::handoff::error::Result;
use crate::os::clock;

/// So often is it looked within `ack_timeout` whether a reader has taken the message: nobody says so.
const LOOKS: u32 = 4;
/// But no more often than this.
const LEAST: Duration = Duration::from_millis(1);

impl Writer {
    /// When there is something to decide about a message on offer. A reader has `ack_timeout` from the moment at which it took the
    /// message, as far as that was seen.
    pub(super) fn deadline(&self, is_taken: bool) -> u64 {
        let all = self.settings.ack_timeout;
        clock::after(if is_taken || self.settings.drop_late { all } else { (all / LOOKS).max(LEAST) })
    }

    /// The time for an acknowledgement is over, or it is time to look whether a reader has come.
    pub(super) fn overdue(&mut self, offer: Offer) -> Result<Progress> {
        if self.has_ended() {
            return self.acknowledged(offer);
        }
        let is_untouched = self.objects.avail.value() > 0;
        let is_taken = !is_untouched && !self.settings.drop_late;
        let is_late = offer.is_taken && is_taken;
        self.offer = Some(Offer { is_taken, deadline: self.deadline(is_taken), ..offer });
        if self.settings.drop_late {
            return self.withdraw();
        }
        if is_untouched {
            // No reader has come for the message yet.
            self.objects.avail.wake_all();
        }
        if !is_late {
            return Ok(Progress::Waiting);
        }
        self.locked(|objects| {
            let header = objects.segment.header();
            header.data_size.store(offer.len, Ordering::Relaxed);
            header.ready_flag.store(1, Ordering::Release);
        })?;
        self.counters.offered_again += 1;
        self.offer = Some(Offer { is_taken: false, deadline: self.deadline(false), ..offer });
        self.objects.avail.post();
        Ok(Progress::Waiting)
    }

    /// Withdraws the message on offer, and counts it as dropped. Returns [`Progress::Acknowledged`] if a reader has read the message by
    /// now, or if no message is on offer.
    ///
    /// # Errors
    /// [`HandoffError::Locked`]: the message is still on offer.
    pub fn withdraw(&mut self) -> Result<Progress> {
        let Some(offer) = self.offer else { return Ok(Progress::Acknowledged) };
        // First of all, so that no reader comes for a message that is about to go.
        self.objects.avail.take_all();
        if self.has_ended() {
            return self.acknowledged(offer);
        }
        self.locked(|objects| objects.segment.header().ready_flag.store(0, Ordering::Relaxed))?;
        self.offer = None;
        self.counters.dropped += 1;
        // Without the note, a later writer withdraws the message once more.
        let _ = self.note_end();
        if let Some(new) = self.shrink_to {
            self.shrink(new)?;
        }
        Ok(Progress::Dropped)
    }

    /// Whether a reader has acknowledged the message on offer, and nobody has looked: a reader that was killed in the middle of its
    /// post has woken nobody, and a post may have come just now.
    fn has_ended(&self) -> bool {
        self.objects.done.posts() > 0 && self.is_read()
    }
}

#[cfg(test)]
mod tests {
    use shm_test_support::unique;

    use super::*;
    use crate::handoff::{Names, Reader, Settings};

    fn pair() -> (Writer, Reader) {
        let [segment, avail, done] = ["late", "late-avail", "late-done"].map(|name| format!("/{}", unique(name)));
        let names = Names::new(&segment, &avail, &done).unwrap();
        (Writer::create(Settings::new(names.clone())).unwrap(), Reader::new(names))
    }

    #[test]
    fn an_acknowledgement_that_woke_nobody_counts_when_the_time_is_over() {
        let (mut writer, mut reader) = pair();
        writer.offer(b"once").unwrap();
        let offer = writer.offer.unwrap();
        assert_eq!(writer.overdue(offer).unwrap(), Progress::Waiting);
        reader.recv(&mut Vec::new(), None).unwrap();
        reader.acknowledge();
        assert_eq!(writer.overdue(offer).unwrap(), Progress::Acknowledged);
        assert_eq!((writer.counters().messages, writer.counters().offered_again), (1, 0));
    }

    /// The message may have been on offer for long when a reader comes.
    #[test]
    fn a_reader_has_the_time_for_an_acknowledgement_from_when_it_took_the_message() {
        let (mut writer, mut reader) = pair();
        writer.offer(b"once").unwrap();
        let look = |writer: &mut Writer| {
            let offer = writer.offer.unwrap();
            assert_eq!(writer.overdue(offer).unwrap(), Progress::Waiting);
            writer.counters().offered_again
        };
        assert_eq!((look(&mut writer), look(&mut writer)), (0, 0));
        reader.recv(&mut Vec::new(), None).unwrap();
        assert_eq!(look(&mut writer), 0, "it was taken since the last look");
        assert_eq!(look(&mut writer), 1, "its time is over");
        assert_eq!(look(&mut writer), 1, "nobody has taken it again");
    }

    #[test]
    fn a_message_that_was_acknowledged_is_not_withdrawn() {
        let (mut writer, mut reader) = pair();
        writer.offer(b"once").unwrap();
        reader.recv(&mut Vec::new(), None).unwrap();
        reader.acknowledge();
        assert_eq!(writer.withdraw().unwrap(), Progress::Acknowledged);
        writer.offer(b"nobody comes").unwrap();
        assert_eq!(writer.withdraw().unwrap(), Progress::Dropped);
        assert_eq!((writer.counters().messages, writer.counters().dropped), (1, 1));
    }
}
