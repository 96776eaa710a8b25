//! Filling the ring in place, and batches.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::tail::{Reserved, Time};
use super::wait::Patience;
use super::{Undone, Writer};
use crate::os::clock;
use crate::ring::writer::error::Result;

/// Bytes reserved in the ring. Dropping the slot aborts the message: nothing of it was ever visible.
///
/// The bytes contain whatever was there before. Commit only bytes that you have written.
#[derive(Debug)]
#[must_use = "nothing is published before `commit`"]
pub struct Slot<'a> {
    writer: &'a mut Writer,
    reserved: Reserved,
}

impl<'a> Slot<'a> {
    pub(super) fn new(writer: &'a mut Writer, reserved: Reserved) -> Slot<'a> {
        Slot { writer, reserved }
    }

    /// Gives up the bytes, which is the same as dropping the slot.
    pub fn abort(self) {}

    /// Lets go of the writer, without giving up the bytes. For bindings to languages whose objects cannot borrow: see
    /// [`Writer::slot`].
    #[doc(hidden)]
    pub fn hold(self) -> HeldSlot {
        HeldSlot { pos: self.writer.tail.pos(), len: self.len() }
    }

    /// Publishes the first `len` bytes as one message; returns its sequence number.
    ///
    /// # Errors
    /// [`WriterError::Revoked`](crate::WriterError::Revoked) if the role has ended since the bytes were reserved:
    /// nothing was published. [`WriterError::Superseded`](crate::WriterError::Superseded). On a channel with `ack`,
    /// [`WriterError::Unacknowledged`](crate::WriterError::Unacknowledged) as for [`Writer::publish`].
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    #[inline(always)]
    pub fn commit(self, len: usize) -> Result<u64> {
        self.commit_with(len, Patience::Policy)
    }

    /// Like [`commit`](Self::commit), but waits for acknowledgements no longer than `timeout`.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    pub fn commit_within(self, len: usize, timeout: Duration) -> Result<u64> {
        self.commit_with(len, Patience::until(timeout))
    }

    #[inline(always)]
    fn commit_with(self, len: usize, patience: Patience) -> Result<u64> {
        let Slot { writer, reserved } = self;
        let reserved = reserved.first(len);
        // Filling the slot may have taken any amount of time.
        if writer.lease.is_over() {
            return Err(writer.deposed());
        }
        if !writer.is_plain {
            return writer.commit_slot_slowly(reserved, patience);
        }
        let seq = writer.tail.commit_reserved(reserved, Time::Never);
        writer.announced(seq)
    }
}

impl Deref for Slot<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.writer.tail.payload(&self.reserved)
    }
}

impl DerefMut for Slot<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.writer.tail.payload_mut(&mut self.reserved)
    }
}

/// A slot that does not borrow its writer: see [`Slot::hold`].
#[doc(hidden)]
#[derive(Debug)]
#[must_use = "nothing is published before `commit`"]
pub struct HeldSlot {
    /// The position of the tail.
    pos: u64,
    len: usize,
}

impl Writer {
    /// Reserves `len` bytes in the ring. The caller fills up to `len` bytes in place and commits them. Returns `None`
    /// if the policy drops the message.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[inline(always)]
    pub fn reserve(&mut self, len: usize) -> Result<Option<Slot<'_>>> {
        if self.lease.is_current()
            && let Some(reserved) = self.tail.reserve(len)
        {
            return Ok(Some(Slot::new(self, reserved)));
        }
        let admitted = self.admit_slowly(len as u64, Patience::Policy)?;
        Ok(if admitted { self.tail.reserve(len).map(|reserved| Slot::new(self, reserved)) } else { None })
    }

    /// Like [`reserve`](Self::reserve), but waits for space no longer than `timeout`.
    ///
    /// # Errors
    /// Also [`WriterError::TimedOut`](crate::WriterError::TimedOut) if there was no space, or if fewer readers than `wait_readers` were attached.
    pub fn reserve_within(&mut self, len: usize, timeout: Duration) -> Result<Option<Slot<'_>>> {
        let admitted = self.admit(len as u64, Patience::until(timeout))?;
        Ok(if admitted { self.tail.reserve(len).map(|reserved| Slot::new(self, reserved)) } else { None })
    }

    #[inline(never)]
    fn commit_slot_slowly(&mut self, reserved: Reserved, patience: Patience) -> Result<u64> {
        if self.geometry.ack {
            return self.commit_acked(|tail| tail.commit_reserved(reserved, Time::IfAny), patience);
        }
        let seq = self.tail.commit_reserved(reserved, Time::IfAny);
        self.announced(seq)
    }

    /// The slot that was held. The caller must not use the writer in between.
    ///
    /// # Panics
    /// If the writer was used, so that the bytes are no longer those that were reserved.
    #[doc(hidden)]
    pub fn slot(&mut self, held: HeldSlot) -> Slot<'_> {
        let reserved = self.tail.reserve(held.len).filter(|_| self.tail.pos() == held.pos);
        Slot::new(self, reserved.expect("the writer was used while a slot was held"))
    }
}

/// Messages that become visible together: at [`commit`](Batch::commit), when the batch is dropped, or earlier if the
/// writer must free space in the ring in between.
///
/// If a batch is leaked with `mem::forget`, its messages and those published after it stay invisible to the readers,
/// until the next batch or [`maintain`](Writer::maintain) at the latest. Once the role has ended, nothing of a batch
/// becomes visible any more.
#[derive(Debug)]
#[must_use = "only `commit` says whether the messages were published"]
pub struct Batch<'a> {
    writer: &'a mut Writer,
}

impl Writer {
    /// Begins a batch: messages that become visible together, with only one look at the readers.
    pub fn batch(&mut self) -> Batch<'_> {
        // Flush a batch that was leaked with `mem::forget`. If the role has ended, the next push returns the error.
        let _ = self.flush();
        self.undone = None;
        Batch::new(self)
    }

    #[cold]
    #[inline(never)]
    fn push_slowly(&mut self, message: &[u8]) -> Result<Option<u64>> {
        let admitted = self.admit_to_batch(message.len(), Patience::Policy)?;
        Ok(if admitted { self.tail.stage(message) } else { None })
    }

    #[cold]
    #[inline(never)]
    fn admit_to_batch(&mut self, len: usize, patience: Patience) -> Result<bool> {
        self.space.expect_batch(&self.tail);
        self.admit_slowly(len as u64, patience)
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(writer: &'a mut Writer) -> Batch<'a> {
        Batch { writer }
    }

    /// Adds a message; returns its sequence number, or `None` if the channel's policy dropped it.
    ///
    /// # Errors
    /// As [`Writer::publish`]. The earlier messages stay in the batch.
    #[inline(always)]
    pub fn push(&mut self, message: &[u8]) -> Result<Option<u64>> {
        if self.writer.lease.is_current()
            && let Some(seq) = self.writer.tail.stage(message)
        {
            return Ok(Some(seq));
        }
        self.writer.push_slowly(message)
    }

    /// Like [`push`](Self::push), but waits for space no longer than `timeout`.
    ///
    /// # Errors
    /// Also [`WriterError::TimedOut`](crate::WriterError::TimedOut): the message is not in the batch.
    #[inline]
    pub fn push_within(&mut self, message: &[u8], timeout: Duration) -> Result<Option<u64>> {
        if self.writer.lease.is_current()
            && let Some(seq) = self.writer.tail.stage(message)
        {
            return Ok(Some(seq));
        }
        let admitted = self.writer.admit_to_batch(message.len(), Patience::until(timeout))?;
        Ok(if admitted { self.writer.tail.stage(message) } else { None })
    }

    /// Like [`push_within`](Self::push_within), but waits for space no longer than until a moment of `CLOCK_MONOTONIC`. For bindings,
    /// which push many messages in one slice of their wait.
    ///
    /// # Errors
    /// As [`push_within`](Self::push_within).
    #[doc(hidden)]
    #[inline]
    pub fn push_until(&mut self, message: &[u8], deadline_ns: u64) -> Result<Option<u64>> {
        if self.writer.lease.is_current()
            && let Some(seq) = self.writer.tail.stage(message)
        {
            return Ok(Some(seq));
        }
        let patience = Patience::Until { deadline_ns, timeout: clock::left(deadline_ns) };
        let admitted = self.writer.admit_to_batch(message.len(), patience)?;
        Ok(if admitted { self.writer.tail.stage(message) } else { None })
    }

    /// Adds a message of `len` bytes that `fill` writes in place.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Option<u64>> {
        let is_at_hand = self.writer.lease.is_current() && self.writer.tail.has_space(len as u64);
        if !is_at_hand && !self.writer.admit_to_batch(len, Patience::Policy)? {
            return Ok(None);
        }
        Ok(Some(self.writer.tail.stage_with(len as u64, fill)))
    }

    /// Makes the messages visible.
    ///
    /// # Errors
    /// [`WriterError::Revoked`](crate::WriterError::Revoked) if the role has ended: nothing was published, except what
    /// was already visible. [`WriterError::Superseded`](crate::WriterError::Superseded). On a channel with `ack`,
    /// [`WriterError::Unacknowledged`](crate::WriterError::Unacknowledged) as for [`Writer::publish`].
    pub fn commit(self) -> Result<()> {
        self.commit_with(Patience::Policy)
    }

    /// Like [`commit`](Self::commit), but waits for acknowledgements no longer than `timeout`.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_within(self, timeout: Duration) -> Result<()> {
        self.commit_with(Patience::until(timeout))
    }

    fn commit_with(self, patience: Patience) -> Result<()> {
        if self.writer.geometry.ack {
            self.writer.expect_ack();
        }
        self.writer.flush()?;
        match self.writer.undone.take() {
            None if self.writer.geometry.ack => self.writer.acknowledged(patience),
            None => Ok(()),
            Some(Undone::Discarded) => Err(self.writer.deposed()),
            Some(Undone::Unknown(seq)) => Err(self.writer.superseded(seq)),
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // If the role has ended, the writer's next call returns the error.
        let _ = self.writer.flush();
    }
}
