//! The hot path: a record at the tail, visible at once or with a batch.
//!
//! As long as nothing changes a publish is one load (has the daemon said anything?), one comparison (does it fit before the
//! next thing to look out for?), the payload, two header words, and a look at each reader's waiting flag.
//!
//! A small record is stored from its end to its beginning. A reader that waits has the line with the header; it gets that line
//! back as soon as it has lost it, and a payload that began there would have to fetch it once more for the header. So that
//! line comes last, when the other is there. With more than a few lines that gains nothing: they take longer than the line's
//! way back and forth, and reader and processor are best at following forwards.

use std::sync::atomic::Ordering;

use super::wait::Patience;
use super::{Undone, Writer};
use crate::error::Result;
use crate::ring::commit;
use crate::ring::layout::OVER;
use crate::ring::published::Place;
use crate::ring::record::{HEADER, Header};
use crate::ring::segment::{SMALL, Unchecked};
use crate::ring::walker::Walker;

/// A record for which there is room at the tail: payload bytes, and bytes altogether.
///
/// What the unsafe code here rests on: when it is made, the record and the header behind it end at or before `limit`, or
/// where [`Plan::place`](crate::ring::plan::Plan::place) said a moment ago that everything is free. Both are at or below the
/// plan's capacity, and that is never above the data area: see `Writer::use_capacity`. Nothing live lies in between. A shorter
/// record fits where a longer one does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    pub(super) len: u64,
    pub(super) stride: u64,
}

impl Writer {
    /// Finds room and copies the payload there.
    #[inline(always)]
    pub(super) fn put(&mut self, message: &[u8], patience: Patience) -> Result<Option<Fit>> {
        let Some(fit) = self.admit(message.len() as u64, patience)? else { return Ok(None) };
        self.fill(message, fit);
        Ok(Some(fit))
    }

    /// Copies a message to the tail, where [`fit`](Self::fit) or [`admit`](Self::admit) has found room for it, and
    /// [closes](Self::close) its record.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(super) fn fill(&mut self, message: &[u8], fit: Fit) {
        debug_assert_eq!(message.len() as u64, fit.len);
        if message.len() <= SMALL {
            self.close(fit);
        }
        // SAFETY: `&mut self` is the one writer, and a `Fit` of this length was just made: see there. The tail has not moved
        // since.
        unsafe { self.segment.fill(self.tail.off + HEADER, message) };
        if message.len() > SMALL {
            self.close(fit);
        }
    }

    /// Clears the header behind a record at the tail, once its length is known: before it is released or staged.
    #[inline(always)]
    pub(super) fn close(&mut self, fit: Fit) {
        commit::clear(&self.headers(), self.tail.off + fit.stride);
    }

    /// The payload bytes at the tail, which [`admit`](Self::admit) has found free.
    #[inline]
    #[allow(unsafe_code)]
    pub(super) fn room(&mut self, len: u64) -> &mut [u8] {
        // SAFETY: `&mut self` is the one writer, and `admit` has just made a `Fit` of this length: see there.
        unsafe { self.segment.payload_mut(self.tail.off + HEADER, len) }
    }

    /// The record of a message of `len` bytes, if it may be put at the tail without looking further.
    #[inline(always)]
    pub(super) fn fit(&self, len: u64) -> Option<Fit> {
        let stride = self.strides.of(len);
        // Acquire: pairs with the daemon's increment; the line that it announces is on the link. A reader that attaches
        // relies on this look coming before the record: see `attend`. On 64-bit Arm, too, no later store overtakes an Acquire
        // load.
        let fits = self.lease.generation.value.load(Ordering::Acquire) == self.generation
            && len <= self.geometry.max_message
            && self.tail.off + stride + HEADER <= self.limit;
        fits.then_some(Fit { len, stride })
    }

    /// Makes sure that a message of `len` bytes fits at the tail. `None` when the channel's policy drops it.
    #[inline]
    pub(super) fn admit(&mut self, len: u64, patience: Patience) -> Result<Option<Fit>> {
        if let Some(fit) = self.fit(len) {
            return Ok(Some(fit));
        }
        Ok(self.admit_slowly(len, patience)?.then(|| Fit { len, stride: self.strides.of(len) }))
    }

    /// Commits the record at the tail, which is filled and closed, visible at once; returns its sequence number.
    ///
    /// # Errors
    /// [`Error::Superseded`](crate::Error::Superseded) when the role had ended by then.
    #[inline(always)]
    pub(super) fn release(&mut self, fit: Fit) -> Result<u64> {
        let at = self.advance(fit);
        commit::release(&self.headers(), at.off, Header::data(fit.len, at.seq));
        if self.announce() { Ok(at.seq) } else { Err(self.superseded(at.seq)) }
    }

    /// Commits the record at the tail, which is filled and closed, behind others of a batch, visible with them.
    #[inline(always)]
    pub(super) fn stage(&mut self, fit: Fit) -> u64 {
        let at = self.advance(fit);
        let header = Header::data(fit.len, at.seq);
        if self.staged.is_none() {
            // The first record's own header stays zero until the whole batch is released by it.
            self.staged = Some((at, header));
        } else {
            commit::stage(&self.headers(), at.off, header);
        }
        at.seq
    }

    /// The header words, for the record at the tail and the header behind it.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn headers(&self) -> Unchecked<'_> {
        // SAFETY: the two headers that are stored are those at both ends of a `Fit`: see there. Offsets at the tail are
        // multiples of 8, because strides and the plan's targets are.
        unsafe { self.segment.unchecked() }
    }

    /// Makes a batch visible, unless the role has ended.
    ///
    /// # Errors
    /// [`Error::Revoked`](crate::Error::Revoked): nothing of it was made visible;
    /// [`Error::Superseded`](crate::Error::Superseded).
    #[inline]
    pub(super) fn flush(&mut self) -> Result<()> {
        let Some((at, header)) = self.staged.take() else { return Ok(()) };
        // Any time may have passed since the last look.
        if self.is_over() {
            self.undone = Some(Undone::Discarded);
            return Err(self.deposed());
        }
        commit::release(&self.segment, at.off, header);
        if self.announce() {
            return Ok(());
        }
        self.undone = Some(Undone::Unknown(at.seq));
        Err(self.superseded(at.seq))
    }

    /// Moves the tail behind a record; returns where it was.
    #[inline(always)]
    fn advance(&mut self, fit: Fit) -> Walker {
        self.bytes = self.bytes.wrapping_add(fit.len);
        self.tail.pass(fit.stride)
    }

    /// The place at the tail.
    pub(super) fn tail_place(&self) -> Place {
        Place { pos: self.tail.pos(), off: self.tail.off, seq: self.tail.seq, bytes: self.bytes }
    }

    /// Moves the mark to the tail.
    pub(super) fn show_tail(&mut self) {
        // A batch that was forgotten; nobody is to be sent behind what is not visible.
        if self.flush().is_err() {
            return;
        }
        self.segment.header().mark.store(self.tail_place());
    }

    /// After something became visible: wakes who sleeps. False, and nobody's page is touched, if the role has ended by now.
    ///
    /// The daemon sets OVER, runs a heavy barrier and only then looks at the ring to find its end. So what this writer made
    /// visible without seeing OVER here is before that end, and readers receive it.
    #[inline(always)]
    pub(super) fn announce(&mut self) -> bool {
        self.barrier.light();
        // Relaxed: the barrier pairs with the daemon's.
        if self.lease.generation.value.load(Ordering::Relaxed) & OVER != 0 {
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
}
