//! Making the segment longer and shorter while readers use it, which may be C programs.

use std::sync::atomic::Ordering;

use super::Writer;
use crate::handoff::error::{HandoffError, Result};
use crate::handoff::layout::{HEADER_SIZE, PAGE};
use crate::os::reserve;

/// The result of a request for another size, in bytes of the whole segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// Before.
    pub old: u64,
    /// Now, or when the message on offer has been acknowledged.
    pub new: u64,
    /// The segment is cut as soon as no message is on offer.
    pub pending: bool,
}

impl Writer {
    /// Makes the segment `bytes` long, rounded up to whole pages, from one page to the largest capacity.
    ///
    /// The segment grows at once. It shrinks at once if no message is on offer, and otherwise after the acknowledgement. A
    /// reader in C keeps its longer mapping and is not harmed, because it accesses only the header and the message.
    ///
    /// # Errors
    /// [`HandoffError::NoSpace`] if there is too little memory, [`HandoffError::Locked`], [`HandoffError::System`].
    pub fn resize(&mut self, bytes: u64) -> Result<Resized> {
        let wanted = bytes.max(1).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        let new = wanted.min(self.settings.max_capacity);
        let old = self.len;
        self.shrink_to = None;
        if new > old {
            self.grow(new)?;
        } else if self.offer.is_some() && new < old {
            self.shrink_to = Some(new);
            self.note(self.entry.stage)?;
        } else if new < old {
            self.shrink(new)?;
        }
        Ok(Resized { old, new, pending: self.shrink_to.is_some() })
    }

    /// Makes the segment large enough for a message of `len` bytes, by doubling.
    pub(super) fn make_room(&mut self, len: u64) -> Result<()> {
        let needed = len.saturating_add(HEADER_SIZE);
        if needed <= self.len {
            return Ok(());
        }
        let mut new = self.len;
        while new < needed {
            new = new.saturating_mul(2);
        }
        self.grow(new.min(self.settings.max_capacity))
    }

    /// Only the file grows; `capacity` follows in [`tell_capacity`](Self::tell_capacity).
    fn grow(&mut self, new: u64) -> Result<()> {
        reserve::in_child(self.objects.segment.fd(), self.len, new, &self.ending).map_err(|error| {
            HandoffError::NoSpace {
                channel: self.settings.names.segment.clone(),
                needed: new,
                capacity: self.len,
                reason: error.to_string(),
            }
        })?;
        self.len = new;
        self.counters.resizes += 1;
        Ok(())
    }

    /// No message is on offer.
    pub(super) fn shrink(&mut self, new: u64) -> Result<()> {
        self.shrink_to = None;
        self.locked(|objects| {
            let capacity = &objects.segment.header().capacity;
            // A reader's mapping is never shorter than the capacity that it was told. This stays true.
            capacity.store(capacity.load(Ordering::Relaxed).min(new), Ordering::Relaxed);
            reserve::truncate(objects.segment.fd(), new)
        })??;
        self.len = new;
        self.counters.resizes += 1;
        // What is noted too late is asked for once more by the next writer, and is there then.
        let _ = self.note(self.entry.stage);
        Ok(())
    }

    /// After an acknowledgement. The reader has seen a file of `len` bytes, so readers may be told this capacity.
    pub(super) fn tell_capacity(&mut self, len: u64) -> Result<()> {
        if self.objects.segment.header().capacity.load(Ordering::Relaxed) == len {
            return Ok(());
        }
        self.locked(|objects| objects.segment.header().capacity.store(len, Ordering::Relaxed))
    }
}
