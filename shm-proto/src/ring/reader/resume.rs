//! Going on where an earlier attachment to the same channel has ended: for a follower, which outlives attachments.

use std::time::{Duration, Instant};

use super::Reader;
use super::error::{ReaderError, Result};
use super::message::Message;
use super::position::Found;

/// The next message is there, and the reader stands at it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ready(Found);

impl Reader {
    /// Goes on for an earlier attachment to the same lineage, after which message `next` was to come: earlier messages are
    /// passed over, and later ones that are not there any more count as lost before the first message.
    pub(crate) fn go_on_at(&mut self, next: u64) {
        self.losses.go_on(next, self.seq());
    }

    /// The message with which a later attachment to the same lineage goes on, if this one ends now.
    pub(crate) fn next_to_receive(&mut self) -> u64 {
        // What cannot be settled was not received.
        let _ = self.settle_up();
        self.losses.next(self.seq())
    }

    /// What [`find`](Self::find) finds, in the one case that is common: see [`at_hand`](Self::at_hand).
    #[inline(always)]
    pub(crate) fn find_at_hand(&mut self) -> Option<Ready> {
        let found = self.at_hand()?;
        (!self.losses.knows(self.seq())).then_some(Ready(found))
    }

    /// Like [`try_recv`](Self::try_recv) without the message, and passes over what is known from before.
    #[inline]
    pub(crate) fn find(&mut self) -> Result<Option<Ready>> {
        loop {
            if self.is_quiet() {
                return Ok(None);
            }
            let Some(found) = self.next_record()? else { return Ok(None) };
            if !self.losses.knows(self.seq()) {
                return Ok(Some(Ready(found)));
            }
            match Message::new(self, found).finish() {
                Ok(()) | Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Like [`find`](Self::find), and waits: until `deadline`, without one for as long as it takes. `None`: nothing came.
    pub(crate) fn await_next(&mut self, deadline: Option<Instant>) -> Result<Option<Ready>> {
        loop {
            if let Some(ready) = self.find()? {
                return Ok(Some(ready));
            }
            let left: Option<Duration> = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match self.await_record(left) {
                Ok(_) => {}
                Err(ReaderError::TimedOut { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The message that was found ready. Nothing may be asked of the reader in between.
    ///
    /// # Panics
    /// If the reader stands where no such message can be.
    #[inline]
    pub(crate) fn message(&mut self, Ready(found): Ready) -> Message<'_> {
        // Whoever has a `Found` relies on this: see `position`.
        assert!(self.position.holds(found), "a message that is not there");
        Message::new(self, found)
    }
}
