//! Filling the ring in place, and batches.

use std::ops::{Deref, DerefMut};

use super::append::Fit;
use super::wait::Patience;
use super::{Undone, Writer};
use crate::error::Result;
use crate::ring::record::HEADER;

/// Bytes reserved in the ring. Dropping it aborts: nothing was ever visible.
///
/// The bytes are whatever was there before; commit only what you have written.
#[derive(Debug)]
pub struct Slot<'a> {
    writer: &'a mut Writer,
    len: usize,
}

impl<'a> Slot<'a> {
    pub(super) fn new(writer: &'a mut Writer, len: usize) -> Slot<'a> {
        Slot { writer, len }
    }

    /// Gives the bytes up; the same as dropping the slot.
    pub fn abort(self) {}

    /// Publishes the first `len` bytes as one message; returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Revoked`](crate::Error::Revoked) when the role has ended since it was reserved: nothing was published;
    /// [`Error::Superseded`](crate::Error::Superseded); [`Error::Unacknowledged`](crate::Error::Unacknowledged) on a channel
    /// with `ack`, as for [`Writer::publish`].
    ///
    /// # Panics
    /// When `len` is more than was reserved.
    #[inline(always)]
    pub fn commit(self, len: usize) -> Result<u64> {
        assert!(len <= self.len, "commit of {len} bytes, {} were reserved", self.len);
        let len = len as u64;
        // Filling it may have taken any time.
        if self.writer.is_over() {
            return Err(self.writer.deposed());
        }
        let fit = Fit { len, stride: self.writer.strides.of(len) };
        self.writer.close(fit);
        if self.writer.geometry.ack {
            return self.writer.release_acked(fit, Patience::Policy);
        }
        self.writer.release(fit)
    }
}

impl Deref for Slot<'_> {
    type Target = [u8];

    #[allow(unsafe_code)]
    fn deref(&self) -> &[u8] {
        let ptr = self.writer.segment.payload(self.writer.tail.off + HEADER, self.len as u64);
        // SAFETY: inside the mapping (checked). `admit` has made a `Fit` of `len` bytes at the tail, and the slot borrows the one
        // writer, so nobody writes these bytes while the reference lives. They are plain bytes of a mapping, always initialised.
        unsafe { std::slice::from_raw_parts(ptr, self.len) }
    }
}

impl DerefMut for Slot<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len as u64;
        self.writer.room(len)
    }
}

/// Messages that become visible together: at [`commit`](Batch::commit), when it is dropped, or earlier when the ring has to
/// be made free in between.
///
/// One that is forgotten (`mem::forget`) keeps what it holds, and what is published after it, from the readers until the next
/// batch or [`maintain`](Writer::maintain) at the latest. Once the role has ended, nothing of a batch becomes visible any more.
#[derive(Debug)]
pub struct Batch<'a> {
    writer: &'a mut Writer,
}

impl<'a> Batch<'a> {
    pub(super) fn new(writer: &'a mut Writer) -> Batch<'a> {
        Batch { writer }
    }

    /// Adds a message; returns its sequence number, or `None` when the channel's policy dropped it.
    ///
    /// # Errors
    /// As [`Writer::publish`]; the messages before stay in the batch.
    #[inline(always)]
    pub fn push(&mut self, message: &[u8]) -> Result<Option<u64>> {
        let Some(fit) = self.writer.put(message, Patience::Policy)? else { return Ok(None) };
        Ok(Some(self.writer.stage(fit)))
    }

    /// Adds a message of `len` bytes that `fill` writes in place.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_with(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Option<u64>> {
        let Some(fit) = self.writer.admit(len as u64, Patience::Policy)? else { return Ok(None) };
        fill(self.writer.room(fit.len));
        self.writer.close(fit);
        Ok(Some(self.writer.stage(fit)))
    }

    /// Makes the messages visible.
    ///
    /// # Errors
    /// [`Error::Revoked`](crate::Error::Revoked) when the role has ended: nothing was published that was not before;
    /// [`Error::Superseded`](crate::Error::Superseded); [`Error::Unacknowledged`](crate::Error::Unacknowledged) on a channel
    /// with `ack`, as for [`Writer::publish`].
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
        // If the role has ended, the writer's next call says so.
        let _ = self.writer.flush();
    }
}
