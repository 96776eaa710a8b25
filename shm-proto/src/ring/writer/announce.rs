//! What follows when something becomes visible: wake-ups, the end of the role, the mark.

use super::{Undone, Writer};
use crate::ring::writer::error::Result;

impl Writer {
    /// Commits the message at the tail, which is filled; returns its sequence number.
    ///
    /// # Errors
    /// [`WriterError::Superseded`] when the role had ended by then.
    #[inline(always)]
    pub(super) fn commit(&mut self, len: u64) -> Result<u64> {
        let seq = self.tail.commit(len);
        self.announced(seq)
    }

    /// After message `seq` became visible: see [`announce`](Self::announce).
    #[inline(always)]
    pub(super) fn announced(&mut self, seq: u64) -> Result<u64> {
        if self.announce() { Ok(seq) } else { Err(self.superseded(seq)) }
    }

    /// After something became visible: wakes who sleeps. False, and nobody's page is touched, if the role has ended by now.
    ///
    /// The daemon sets OVER, runs a heavy barrier and only then looks at the ring to find its end. So what this writer made
    /// visible without seeing OVER here is before that end, and readers receive it.
    #[inline(always)]
    pub(super) fn announce(&mut self) -> bool {
        self.barrier.light();
        if self.lease.was_over() {
            return false;
        }
        if self.peers.anybody_waits() {
            self.wake();
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn wake(&mut self) {
        if self.peers.wake(self.tail.pos(), false) {
            // The reader had read everything, so messages are rare, and readers of the mark may as well see all of them.
            self.show_tail();
        }
    }

    /// Makes a batch visible, unless the role has ended.
    ///
    /// # Errors
    /// [`WriterError::Revoked`]: nothing of it was made visible;
    /// [`WriterError::Superseded`].
    #[inline(always)]
    pub(super) fn flush(&mut self) -> Result<()> {
        match self.tail.staged() {
            None => Ok(()),
            Some(seq) => self.flush_from(seq),
        }
    }

    fn flush_from(&mut self, seq: u64) -> Result<()> {
        // Any time may have passed since the last look.
        if self.lease.is_over() {
            self.tail.discard_staged();
            self.undone = Some(Undone::Discarded);
            return Err(self.deposed());
        }
        self.tail.release_staged();
        self.announced(seq).map(drop).inspect_err(|_| self.undone = Some(Undone::Unknown(seq)))
    }

    /// Moves the mark to the tail.
    pub(super) fn show_tail(&mut self) {
        // A batch that was forgotten; nobody is to be sent behind what is not visible.
        if self.flush().is_ok() {
            self.tail.show();
        }
    }
}
