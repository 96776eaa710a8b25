//! The tail: where the next record goes, and the bytes there. This is the only part of the writer that needs unsafe
//! code.
//!
//! Everything that the unsafe code relies on is in the private fields of [`Tail`], and only this file changes them:
//!
//! - The header at `at` lies inside the data area, at 8 modulo 16. [`Tail::new`] and [`Tail::jump`] check that. For the
//!   header behind a record, this follows from the next item, because strides are multiples of 16.
//! - `limit` is at or below the end of the data area. The [`Plan`] has found everything from the header at `at` up to
//!   `limit` free: [`Tail::open`] asks the plan.
//!
//! So a record may be filled if the record and the header behind it end at or before `limit`: see [`Fit`].
//!
//! A small record is stored from its end to its beginning. A reader that waits holds the cache line with the header,
//! and fetches that line again as soon as it has lost it. If the payload at the beginning of the line were stored
//! first, the writer would have to fetch the line a second time for the header. So that line comes last. For records of
//! more than a few lines, this gains nothing: they take longer than the line takes to go back and forth, and both the
//! reader and the processor are best at following forwards.
#![allow(unsafe_code)]

mod staged;

use self::staged::Staged;
use crate::os::clock::monotonic_ns;
use crate::ring::commit;
use crate::ring::copy::SMALL;
use crate::ring::geometry::Geometry;
use crate::ring::layout::{Counters, SegmentHeader};
use crate::ring::plan::{Placement, Plan};
use crate::ring::published::Place;
use crate::ring::record::{HEADER, Header, LEAST_ALIGN, Strides, align_header};
use crate::ring::segment::{Segment, Unchecked, WritableSegment};
use crate::ring::walker::Walker;

#[derive(Debug)]
pub(super) struct Tail {
    segment: WritableSegment,
    strides: Strides,
    max_message: u64,
    /// Where the next record goes.
    at: Walker,
    /// Payload bytes before the tail.
    bytes: u64,
    /// A record that ends at or before this offset, together with the header behind it, needs no further check.
    limit: u64,
    staged: Staged,
    /// Every record gets the time at which it was published, in the word before its header.
    has_times: bool,
}

/// What is known about the publish time of a record. The callers give a constant, so that no instruction is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// Records get no time: the caller has looked.
    Never,
    /// The record gets a time if all records do.
    IfAny,
}

/// A record that has space at the tail: payload bytes, and bytes in total.
///
/// The record and the header behind it lie between the tail and `limit`. A `Fit` is valid until the tail moves, so each
/// is made and used up within one method of [`Tail`].
#[derive(Debug)]
struct Fit {
    len: u64,
    stride: u64,
}

/// Payload bytes at the tail that a [`Slot`](super::Slot) holds. A `Reserved` says the same as a [`Fit`], but outlives
/// one method.
///
/// The slot borrows the writer and thereby the tail, so the tail has not moved since these bytes were reserved.
#[derive(Debug)]
pub(super) struct Reserved {
    len: usize,
}

impl Reserved {
    /// The first `len` bytes. A shorter record fits wherever a longer record fits.
    ///
    /// # Panics
    /// If `len` is more than was reserved.
    #[inline(always)]
    pub(super) fn first(self, len: usize) -> Reserved {
        assert!(len <= self.len, "commit of {len} bytes, {} were reserved", self.len);
        Reserved { len }
    }
}

impl Tail {
    /// The tail of a ring at this place.
    ///
    /// # Panics
    /// If no header can stand there.
    pub(super) fn new(segment: WritableSegment, geometry: &Geometry, place: Place) -> Tail {
        let fits = segment.max_capacity().checked_sub(HEADER).is_some_and(|last| place.off <= last);
        assert!(fits && align_header(place.off, LEAST_ALIGN) == place.off, "a tail at offset {}", place.off);
        Tail {
            strides: geometry.strides(),
            max_message: geometry.max_message,
            at: Walker::at(place),
            bytes: place.bytes,
            limit: 0,
            staged: Staged::default(),
            has_times: geometry.has_publish_times(),
            segment,
        }
    }

    /// Position: bytes of the chain before the tail.
    #[inline(always)]
    pub(super) fn pos(&self) -> u64 {
        self.at.pos()
    }

    /// Messages before the tail.
    #[inline(always)]
    pub(super) fn seq(&self) -> u64 {
        self.at.seq
    }

    /// The place at the tail.
    #[inline]
    pub(super) fn place(&self) -> Place {
        Place { pos: self.at.pos(), off: self.at.off, seq: self.at.seq, bytes: self.bytes }
    }

    /// Bytes that a message takes in the ring.
    #[inline]
    pub(super) fn stride_of(&self, len: u64) -> u64 {
        self.strides.of(len)
    }

    /// The records, for reading.
    #[inline]
    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    #[inline]
    pub(super) fn header(&self) -> &SegmentHeader {
        self.segment.header()
    }

    #[inline]
    pub(super) fn counters(&self) -> &Counters {
        &self.segment.header().counters
    }

    /// Publishes the place at the tail as the mark. Nothing may be staged: the mark must not lead readers behind
    /// records that are not visible.
    #[inline]
    pub(super) fn show(&self) {
        debug_assert!(self.staged.seq().is_none());
        self.segment.header().mark.store(self.place());
    }

    /// From now on, no message fits until [`open`](Self::open) has checked the plan again.
    #[inline]
    pub(super) fn close(&mut self) {
        self.limit = 0;
    }

    /// Checks where the plan places a message of `len` bytes. If that is here, the message fits from now on, and so do
    /// other messages that end at most `ahead` bytes from the tail.
    #[inline]
    pub(super) fn open(&mut self, plan: &Plan, len: u64, ahead: u64) -> Placement {
        debug_assert!(self.at.off == plan.tail_off());
        let stride = self.strides.of(len);
        let placement = plan.place(stride);
        if let Placement::Here { limit } = placement {
            let soon = self.at.off + ahead.max(stride + HEADER);
            self.limit = limit.min(soon).min(self.segment.max_capacity());
            debug_assert!(self.has_space(len));
        }
        placement
    }

    /// Makes all readers continue at another offset.
    ///
    /// # Panics
    /// If no header can stand there.
    #[inline]
    pub(super) fn jump(&mut self, target: u64) {
        assert!(align_header(target, LEAST_ALIGN) == target, "a jump to offset {target}");
        // `commit` checks that both headers lie inside the data area.
        commit::commit(&self.segment, self.at.off, Header::jump(target, self.at.seq), target);
        self.at.jump(target);
        self.limit = 0;
    }

    /// Whether a message of `len` bytes may be put at the tail without another look at the plan.
    #[inline(always)]
    pub(super) fn has_space(&self, len: u64) -> bool {
        self.fit(len).is_some()
    }

    /// Space for a message of `len` bytes at the tail, to be filled in place.
    #[inline(always)]
    pub(super) fn reserve(&self, len: usize) -> Option<Reserved> {
        self.fit(len as u64).map(|_| Reserved { len })
    }

    #[inline(always)]
    fn fit(&self, len: u64) -> Option<Fit> {
        let stride = self.strides.of(len);
        let fits = len <= self.max_message && self.at.off + stride + HEADER <= self.limit;
        fits.then_some(Fit { len, stride })
    }

    /// Whether records get the time at which they were published.
    pub(super) fn has_times(&self) -> bool {
        self.has_times
    }

    /// Puts a message at the tail and makes it visible; returns its sequence number. `None` if the message does not fit
    /// without another look at the plan.
    #[inline(always)]
    pub(super) fn put(&mut self, message: &[u8], time: Time) -> Option<u64> {
        let fit = self.fit(message.len() as u64)?;
        self.fill_record(message, &fit);
        self.note_time(time);
        Some(self.release(&fit))
    }

    /// Like [`put`](Self::put), but behind other messages of a batch, and visible together with them.
    #[inline(always)]
    pub(super) fn stage(&mut self, message: &[u8]) -> Option<u64> {
        let fit = self.fit(message.len() as u64)?;
        self.fill_record(message, &fit);
        Some(self.stage_record(&fit))
    }

    /// Like [`stage`](Self::stage), for a message that is filled in place.
    ///
    /// # Panics
    /// If there is no space for it.
    #[inline]
    pub(super) fn stage_with(&mut self, len: u64, fill: impl FnOnce(&mut [u8])) -> u64 {
        let Some(fit) = self.fit(len) else { no_space(len) };
        fill(self.payload_mut(&mut Reserved { len: len as usize }));
        self.end_record(&fit);
        self.stage_record(&fit)
    }

    /// Copies a message to the tail. The message does not become a record before [`commit`](Self::commit). False if it
    /// does not fit.
    #[inline]
    pub(super) fn fill(&mut self, message: &[u8]) -> bool {
        self.fit(message.len() as u64).map(|fit| self.fill_record(message, &fit)).is_some()
    }

    /// The payload bytes that are reserved at the tail.
    #[inline(always)]
    pub(super) fn payload(&self, reserved: &Reserved) -> &[u8] {
        // SAFETY: the bytes lie inside the data area, as a `Reserved` says. This is the only writer, so nothing writes
        // these bytes while the reference lives. They are plain bytes of a mapping, which are always initialised.
        unsafe { std::slice::from_raw_parts(self.segment.payload_unchecked(self.at.off + HEADER), reserved.len) }
    }

    /// The payload bytes that are reserved at the tail, to be filled.
    #[inline(always)]
    pub(super) fn payload_mut(&mut self, reserved: &mut Reserved) -> &mut [u8] {
        // SAFETY: the bytes lie inside the data area, as a `Reserved` says, and `&mut self` is the only writer.
        unsafe { self.segment.payload_mut(self.at.off + HEADER, reserved.len) }
    }

    /// Turns the bytes that are reserved at the tail into a message that is visible at once; returns its sequence
    /// number.
    #[inline(always)]
    pub(super) fn commit_reserved(&mut self, reserved: Reserved, time: Time) -> u64 {
        let len = reserved.len as u64;
        debug_assert!(self.has_space(len));
        let fit = Fit { len, stride: self.strides.of(len) };
        self.end_record(&fit);
        self.note_time(time);
        self.release(&fit)
    }

    /// Turns the first `len` bytes at the tail, which are [filled](Self::fill), into a message that is visible at once;
    /// returns its sequence number.
    ///
    /// # Panics
    /// If there is no space for the message.
    #[inline(always)]
    pub(super) fn commit(&mut self, len: u64) -> u64 {
        let Some(reserved) = self.reserve(len as usize) else { no_space(len) };
        self.commit_reserved(reserved, Time::IfAny)
    }

    /// The number of the first staged message.
    #[inline(always)]
    pub(super) fn staged(&self) -> Option<u64> {
        self.staged.seq()
    }

    /// Discards everything that is staged, so that it never becomes visible.
    pub(super) fn discard_staged(&mut self) {
        self.staged.end();
    }

    /// Makes everything visible that is staged.
    #[inline(always)]
    pub(super) fn release_staged(&mut self) {
        if let Some((at, header)) = self.staged.end() {
            commit::release(&self.segment, at.off, header);
        }
    }

    /// Copies the payload to the tail and [ends](Self::end_record) the record.
    #[inline(always)]
    fn fill_record(&mut self, message: &[u8], fit: &Fit) {
        debug_assert_eq!(message.len() as u64, fit.len);
        if message.len() <= SMALL {
            self.end_record(fit);
        }
        // SAFETY: `&mut self` is the only writer, and the `Fit` says that the bytes lie inside the data area and are
        // free.
        unsafe { self.segment.fill(self.at.off + HEADER, message) };
        if message.len() > SMALL {
            self.end_record(fit);
        }
    }

    /// Clears the header behind the record. Call this before the record is released or staged.
    #[inline(always)]
    fn end_record(&mut self, fit: &Fit) {
        commit::clear(&self.headers(), self.at.off + fit.stride);
    }

    /// Makes the record at the tail visible, which is filled and ended, and has its time.
    #[inline(always)]
    fn release(&mut self, fit: &Fit) -> u64 {
        let at = self.advance(fit);
        commit::release(&self.headers(), at.off, Header::data(fit.len, at.seq));
        at.seq
    }

    /// Puts the record at the tail, which is filled and ended, behind others of a batch.
    #[inline(always)]
    fn stage_record(&mut self, fit: &Fit) -> u64 {
        if !self.staged.needs_only_headers() {
            return self.stage_record_slowly(fit);
        }
        let at = self.advance(fit);
        commit::stage(&self.headers(), at.off, Header::data(fit.len, at.seq));
        at.seq
    }

    /// The same for the first record of a batch, and for records with times.
    #[inline(never)]
    fn stage_record_slowly(&mut self, fit: &Fit) -> u64 {
        self.note_time(Time::IfAny);
        let at = self.advance(fit);
        let header = Header::data(fit.len, at.seq);
        if !self.staged.begin(at, header, self.has_times) {
            commit::stage(&self.headers(), at.off, header);
        }
        at.seq
    }

    /// Stores the time of the record at the tail. The header's release, which comes later, makes it visible.
    #[inline(always)]
    fn note_time(&self, time: Time) {
        debug_assert!(time == Time::IfAny || !self.has_times);
        if time == Time::IfAny && self.has_times {
            commit::set_time(&self.headers(), self.at.off, monotonic_ns());
        }
    }

    /// Moves the tail behind a record; returns where the tail was.
    #[inline(always)]
    fn advance(&mut self, fit: &Fit) -> Walker {
        self.bytes = self.bytes.wrapping_add(fit.len);
        self.at.pass(fit.stride)
    }

    /// The header words at both ends of a [`Fit`], and the word before the first of them.
    #[inline(always)]
    fn headers(&self) -> Unchecked<'_> {
        // SAFETY: one word is where the tail is or was, at 8 modulo 16, so that there is a word before it, and the other lies
        // before `limit`. All of them are inside the data area, at multiples of 8: see the invariants above.
        unsafe { self.segment.unchecked() }
    }
}

/// Panics because a slot or a message without space is committed, which the rest of the writer never does.
#[cold]
#[inline(never)]
fn no_space(len: u64) -> ! {
    panic!("a commit of {len} bytes that have no space at the tail")
}
