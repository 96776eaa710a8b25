//! Where a reader stands in the segment. This file and [`Message`](super::Message), which reads the payload there, are
//! the only parts of the reader that need unsafe code.
//!
//! The unsafe code relies on one fact about the private fields of [`Position`], which only this file changes: the
//! header at `at` lies inside the data area, at 8 modulo 16. Every function that moves `at` ensures that first:
//! [`Position::go_to`] and [`Position::jump`] check it themselves. [`Position::pass`] takes a [`Found`], and
//! [`Position::pass_all`] a [`Stretch`], which prove that the header behind the last record also lies inside; strides are
//! multiples of 16.
//!
//! Published places, jumps and records are also checked against the length of the file, because memory behind its end
//! must not be accessed. If something lies beyond the `known` length, the length is looked up again. `known` is never
//! more than the capacity that the writer shows, unless the reader itself stands above that: a writer that has made the
//! ring smaller shows the new capacity before the daemon truncates the file.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use crate::os::reserve;
use crate::ring::chain::implausible;
use crate::ring::commit::{look, time};
use crate::ring::geometry::Geometry;
use crate::ring::layout::{DATA_OFFSET, LINE, SegmentHeader};
use crate::ring::published::Place;
use crate::ring::reader::error::{ReaderError, Result};
use crate::ring::record::{HEADER, Header, Kind, LEAST_ALIGN, Strides, align_header};
use crate::ring::segment::Segment;
use crate::ring::walker::Walker;

/// Records up to this size, in bytes, usually lie on two cache lines.
const SMALL: u64 = 2 * LINE;

#[derive(Debug)]
pub(super) struct Position {
    segment: Segment,
    /// The segment's descriptor, to look up the length of the file, which changes.
    file: OwnedFd,
    geometry: Geometry,
    strides: Strides,
    /// The header to look at next.
    at: Walker,
    /// Bytes of data that are known to be in the file, never more than are mapped.
    known: u64,
    /// The ring's capacity when it was last looked at, in bytes.
    capacity: u64,
    /// Size of the last record in the ring, in bytes.
    last: u64,
    /// Every record has its publish time.
    has_times: bool,
}

/// A record at the reader's current place: payload bytes, and bytes in total. The whole record and the header behind it
/// lie in the data area.
///
/// A `Found` is made for the current place, and is valid until the reader moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    len: u64,
    stride: u64,
}

impl Found {
    /// Payload bytes.
    #[inline(always)]
    pub(super) fn len(self) -> usize {
        self.len as usize
    }
}

/// Records one after the other from the reader's current place on. All of them and the header behind the last one lie in the
/// data area.
///
/// A `Stretch` is made for the current place, and is valid until the reader moves.
#[derive(Debug)]
pub(super) struct Stretch {
    count: usize,
    /// The place behind the last record.
    end: Walker,
    /// Size of the last record in the ring, in bytes.
    last: u64,
}

impl Stretch {
    #[inline(always)]
    pub(super) fn count(&self) -> usize {
        self.count
    }
}

/// Bytes of data in the file, as far as they are mapped.
fn data_length(file: BorrowedFd<'_>, geometry: &Geometry) -> Result<u64> {
    Ok(reserve::length(file)?.saturating_sub(DATA_OFFSET).min(geometry.max_capacity))
}

/// A segment that a reader may change to.
#[derive(Debug)]
pub(super) struct Mapped {
    segment: Segment,
    known: u64,
}

impl Mapped {
    pub(super) fn open(file: BorrowedFd<'_>, geometry: &Geometry) -> Result<Mapped> {
        Ok(Mapped { segment: Segment::open(file, geometry)?, known: data_length(file, geometry)? })
    }

    /// Why no reader may go to this place in the segment.
    pub(super) fn implausible(&self, place: Place, geometry: &Geometry) -> Option<String> {
        implausible(place, geometry, self.known)
    }
}

impl Position {
    /// Stands at the beginning of a segment's data. `file` and `geometry` are those that the segment was mapped with.
    pub(super) fn new(mapped: Mapped, file: OwnedFd, geometry: Geometry) -> Position {
        let Mapped { segment, known } = mapped;
        assert_eq!(segment.max_capacity(), geometry.max_capacity);
        let strides = geometry.strides();
        let has_times = geometry.has_publish_times();
        Position { segment, file, geometry, strides, at: Walker::default(), known, capacity: 0, last: 0, has_times }
    }

    /// The current place, in a form that is cheap to move with every message.
    #[inline(always)]
    pub(super) fn at(&self) -> &Walker {
        &self.at
    }

    #[inline(always)]
    pub(super) fn pos(&self) -> u64 {
        self.at.pos()
    }

    #[inline(always)]
    pub(super) fn seq(&self) -> u64 {
        self.at.seq
    }

    #[inline(always)]
    pub(super) fn off(&self) -> u64 {
        self.at.off
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The segment's first page.
    #[inline(always)]
    pub(super) fn header(&self) -> &SegmentHeader {
        self.segment.header()
    }

    /// Whether the floor has passed the current place. Then what was read here before may have been overwritten.
    #[inline]
    pub(super) fn is_passed(&self) -> bool {
        self.segment.header().floor.has_passed(self.at.pos())
    }

    /// The header at the current place.
    #[inline(always)]
    pub(super) fn look(&self) -> Header {
        // SAFETY: the header at the current place lies in the data area, at a multiple of 8: see the invariant above.
        look(&unsafe { self.segment.unchecked() }, self.at.off)
    }

    /// Whether records have their publish times.
    #[inline(always)]
    pub(super) fn has_times(&self) -> bool {
        self.has_times
    }

    /// When the record at the current place was published, in `CLOCK_MONOTONIC` nanoseconds, if records have their publish times.
    #[inline]
    pub(super) fn time(&self, _: &Found) -> Option<u64> {
        // SAFETY: the header at the current place lies in the data area at 8 modulo 16, so the word before it does, too.
        self.has_times.then(|| time(&unsafe { self.segment.unchecked() }, self.at.off))
    }

    /// Whether there is nothing at the current place.
    pub(super) fn is_empty(&self) -> bool {
        self.look().kind() == Kind::Empty
    }

    /// Whether something has arrived at the current place.
    ///
    /// While there is nothing and messages are small, this also prefetches the next cache line: the message will end
    /// there, so that both lines come from the writer in parallel instead of one after the other. For larger messages,
    /// the other lines are already in transit by that time, and a prefetch would only disturb the writer.
    #[inline(always)]
    pub(super) fn has_come(&self) -> bool {
        let come = self.look().kind() != Kind::Empty;
        if !come && self.last <= SMALL {
            self.segment.prefetch(self.at.off + LINE);
        }
        come
    }

    /// The record at the current place, if its header is the header of the next message.
    #[inline(always)]
    pub(super) fn at_hand(&self) -> Option<Found> {
        self.fit(self.look().len_of(self.at.seq)?)
    }

    /// A record of this many payload bytes at the current place, if the record and the header behind it lie within the
    /// known length of the file.
    #[inline(always)]
    fn fit(&self, len: u64) -> Option<Found> {
        let stride = self.strides.of(len);
        let fits = len <= self.geometry.max_message && self.at.off + stride + HEADER <= self.known;
        fits.then_some(Found { len, stride })
    }

    /// Whether a record of this size at the current place, and the header behind it, lie within the known length of the
    /// file.
    #[inline(always)]
    pub(super) fn holds(&self, found: Found) -> bool {
        self.at.off + found.stride + HEADER <= self.known
    }

    /// Like [`fit`](Self::fit), but looks at the file again, because the file may have grown.
    pub(super) fn find(&mut self, len: u64) -> Option<Found> {
        let end = self.at.off.saturating_add(self.strides.of(len)).saturating_add(HEADER);
        if self.reaches(end) { self.fit(len) } else { None }
    }

    /// The address of the payload of a record at the current place.
    #[inline(always)]
    pub(super) fn payload(&self, _: &Found) -> *const u8 {
        // SAFETY: the address is directly behind the header at the current place, which lies in the data area.
        unsafe { self.segment.payload_unchecked(self.at.off + HEADER) }
    }

    /// Moves behind the record at the current place.
    #[inline(always)]
    pub(super) fn pass(&mut self, found: Found) {
        debug_assert!(self.at.off + found.stride + HEADER <= self.geometry.max_capacity);
        self.at.pass(found.stride);
        self.last = found.stride;
    }

    /// Up to `most` records from the current place on, as far as they have arrived without a jump between them. `each` gets the
    /// payload's address, its bytes and the message's number.
    #[inline(always)]
    pub(super) fn stretch(&self, most: usize, mut each: impl FnMut(*const u8, usize, u64)) -> Stretch {
        let mut stretch = Stretch { count: 0, end: self.at, last: self.last };
        while stretch.count < most {
            let at = &mut stretch.end;
            // SAFETY: the header lies in the data area, at a multiple of 8: it is the one at the current place, or the one behind
            // a record that was found to lie inside.
            let header = look(&unsafe { self.segment.unchecked() }, at.off);
            let Some(len) = header.len_of(at.seq) else { break };
            let record = self.strides.of(len);
            if len > self.geometry.max_message || at.off + record + HEADER > self.known {
                break;
            }
            // SAFETY: the address is directly behind that header.
            let payload = unsafe { self.segment.payload_unchecked(at.off + HEADER) };
            each(payload, len as usize, at.seq);
            at.pass(record);
            stretch.last = record;
            stretch.count += 1;
        }
        stretch
    }

    /// Moves behind records that begin at the current place.
    #[inline(always)]
    pub(super) fn pass_all(&mut self, stretch: Stretch) {
        debug_assert!(stretch.end.off + HEADER <= self.geometry.max_capacity);
        (self.at, self.last) = (stretch.end, stretch.last);
    }

    /// Follows the jump at the current place.
    pub(super) fn jump(&mut self, target: u64) -> Result<()> {
        let max_capacity = self.geometry.max_capacity;
        if target > max_capacity - HEADER || align_header(target, self.strides.align()) != target {
            return Err(self.broken(format!("offset {target} is no place for a header")));
        }
        if !self.reaches(target + HEADER) {
            let length = self.known;
            return Err(self.broken(format!("offset {target} is outside the {length} bytes of data that there are")));
        }
        self.at.jump(target);
        self.know_less();
        Ok(())
    }

    /// Goes to a place that [`believe`](Self::believe) has accepted.
    ///
    /// # Panics
    /// If no header can stand there.
    pub(super) fn go_to(&mut self, place: Place) {
        let inside = place.off <= self.segment.max_capacity() - HEADER;
        assert!(inside && align_header(place.off, LEAST_ALIGN) == place.off, "a reader at offset {}", place.off);
        self.at = Walker::at(place);
    }

    /// Checks whether a reader may go to a place that the writer or the daemon has published. Always looks at the file
    /// again.
    pub(super) fn believe(&mut self, place: Option<Place>) -> Result<Place> {
        let place = place.ok_or_else(|| self.broken("a published place changes all the time".to_owned()))?;
        self.known = data_length(self.file.as_fd(), &self.geometry)?;
        match implausible(place, &self.geometry, self.known) {
            None => Ok(place),
            Some(reason) => Err(self.broken(reason)),
        }
    }

    /// Whether the file has data up to `end`, either according to the known length or after another look at the file.
    fn reaches(&mut self, end: u64) -> bool {
        if end > self.known
            && let Ok(length) = data_length(self.file.as_fd(), &self.geometry)
        {
            self.known = length;
        }
        end <= self.known
    }

    /// The ring's capacity when it was last looked at.
    #[inline(always)]
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Looks at the ring's capacity.
    pub(super) fn look_at_capacity(&mut self) -> u64 {
        let capacity = self.header().counters.capacity.load(Ordering::Relaxed).min(self.geometry.max_capacity);
        if capacity != self.capacity {
            self.capacity = capacity;
            self.know_less();
        }
        capacity
    }

    /// Lowers the known length, after the writer has shown another capacity or this reader may have come below the
    /// capacity.
    fn know_less(&mut self) {
        self.known = self.known.min(self.capacity.max(self.at.off.saturating_add(HEADER)));
    }

    #[cold]
    pub(super) fn corrupt(&self, header: Header) -> ReaderError {
        let (off, seq) = (self.at.off, self.at.seq);
        self.broken(format!("{:#x} at offset {off} is no header of message {seq}", header.0))
    }

    #[cold]
    pub(super) fn broken(&self, reason: String) -> ReaderError {
        ReaderError::Corrupt { channel: self.geometry.channel.to_string(), reason }
    }
}
