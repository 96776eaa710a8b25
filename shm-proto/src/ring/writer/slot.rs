//! Filling the ring in place, and batches.

use std::ops::{Deref, DerefMut};

use super::tail::Reserved;
use super::wait::Patience;
use super::{Undone, Writer};
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
        let Slot { writer, reserved } = self;
        let reserved = reserved.first(len);
        // Filling the slot may have taken any amount of time.
        if writer.lease.is_over() {
            return Err(writer.deposed());
        }
        if writer.geometry.ack {
            return writer.commit_acked(|tail| tail.commit_reserved(reserved), Patience::Policy);
        }
        let seq = writer.tail.commit_reserved(reserved);
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

    /// Adds a message of `len` bytes that `fill` writes in place.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Option<u64>> {
        if !self.writer.admit(len as u64, Patience::Policy)? {
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
        if self.writer.geometry.ack {
            self.writer.expect_ack();
        }
        self.writer.flush()?;
        match self.writer.undone.take() {
            None if self.writer.geometry.ack => self.writer.acknowledged(Patience::Policy),
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
