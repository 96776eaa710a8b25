//! What follows after something has become visible: wake-ups, a check for the end of the role, and the mark.

use std::sync::atomic::{Ordering, fence};

use super::{Undone, Writer};
use crate::ring::writer::error::Result;

impl Writer {
    /// Commits the message at the tail, which is filled; returns its sequence number.
    ///
    /// # Errors
    /// [`WriterError::Superseded`] if the role had ended by then.
    #[inline(always)]
    pub(super) fn commit(&mut self, len: u64) -> Result<u64> {
        let seq = self.tail.commit(len);
        self.announced(seq)
    }

    /// Called after message `seq` has become visible: see [`announce`](Self::announce).
    #[inline(always)]
    pub(super) fn announced(&mut self, seq: u64) -> Result<u64> {
        if self.announce() { Ok(seq) } else { Err(self.superseded(seq)) }
    }

    /// Called after something has become visible: wakes the readers that sleep. Returns false, and touches no reader's
    /// page, if the role has ended by now.
    ///
    /// The daemon sets OVER, runs a heavy barrier, and only then reads the ring to find its end. So everything that
    /// this writer made visible before it found OVER unset here is before that end, and readers receive it.
    #[inline(always)]
    pub(super) fn announce(&mut self) -> bool {
        self.barrier.light();
        if self.lease.was_over() {
            return false;
        }
        !self.peers.anybody_waits() || self.wake()
    }

    /// Returns false, and touches no reader's page, if the channel has gone on in another segment: the flag that a reader raises there
    /// is for the next writer.
    #[cold]
    #[inline(never)]
    fn wake(&mut self) -> bool {
        // Acquire, after the looks at the flags: a reader that has raised its flag in another segment has done so after the daemon
        // had left this one.
        fence(Ordering::Acquire);
        if self.is_left() {
            return false;
        }
        if self.peers.wake(self.tail.pos(), false) {
            // The reader had read everything. So messages are rare, and processes that read the mark may as well see
            // all of them. The next message looks at everything again: see `Space::place`.
            self.show_tail();
            self.tail.close();
        }
        true
    }

    /// Makes a batch visible, unless the role has ended.
    ///
    /// # Errors
    /// [`WriterError::Revoked`]: nothing of the batch was made visible; [`WriterError::Superseded`].
    #[inline(always)]
    pub(super) fn flush(&mut self) -> Result<()> {
        match self.tail.staged() {
            None => Ok(()),
            Some(seq) => self.flush_from(seq),
        }
    }

    fn flush_from(&mut self, seq: u64) -> Result<()> {
        // Any amount of time may have passed since the last look.
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
        // A leaked batch may be staged. The mark must not lead readers behind records that are not visible.
        if self.flush().is_ok() {
            self.tail.show();
        }
    }
}
