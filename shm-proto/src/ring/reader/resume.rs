//! Continuing where an earlier attachment to the same channel ended, for a follower, which outlives attachments.

use super::Reader;
use super::error::{ReaderError, Result};
use super::message::Message;
use super::ready::Ready;
use crate::os::clock;

impl Reader {
    /// Continues an earlier attachment to the same lineage, after which message `next` was expected. Earlier messages
    /// are skipped. If later messages are no longer there, they count as lost before the first message.
    pub(crate) fn go_on_at(&mut self, next: u64) {
        self.losses.go_on(next, self.seq());
        // The delays of messages that the program has were counted when it received them.
        self.timed = next;
    }

    /// The message with which a later attachment to the same lineage continues if this attachment ends now.
    pub(crate) fn next_to_receive(&mut self) -> u64 {
        // A record that cannot be settled was not received.
        let _ = self.settle_up();
        self.losses.next(self.seq())
    }

    /// The result of [`find`](Self::find) in the most common case: see [`at_hand`](Self::at_hand).
    #[doc(hidden)]
    #[inline(always)]
    pub fn find_at_hand(&mut self) -> Option<Ready> {
        let found = self.at_hand()?;
        (!self.losses.knows(self.seq())).then_some(Ready::new(found))
    }

    /// Like [`try_recv`](Self::try_recv), but does not return the message, and skips messages that the program already
    /// has.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Option<Ready>> {
        loop {
            let found = if self.position.has_come() { self.next_record()? } else { self.look_again()? };
            let Some(found) = found else { return Ok(None) };
            if !self.losses.knows(self.seq()) {
                return Ok(Some(Ready::new(found)));
            }
            match Message::new(self, found).finish() {
                Ok(()) | Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Like [`find`](Self::find), but waits until `deadline_ns`. `None` if no message came.
    pub(crate) fn await_next(&mut self, deadline_ns: u64) -> Result<Option<Ready>> {
        loop {
            if let Some(ready) = self.find()? {
                return Ok(Some(ready));
            }
            match self.await_record(Some(clock::left(deadline_ns))) {
                Ok(_) => {}
                Err(ReaderError::TimedOut { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The message that was found ready. The caller must not use the reader in between.
    ///
    /// # Panics
    /// If the reader stands where no such message can be.
    #[doc(hidden)]
    #[inline]
    pub fn message(&mut self, ready: Ready) -> Message<'_> {
        let found = ready.found();
        // The holder of a `Found` relies on this: see `position`.
        assert!(self.position.holds(found), "a message that is not there");
        Message::new(self, found)
    }
}
