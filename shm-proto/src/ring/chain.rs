//! Walking the chain of records in a segment's file, without mapping it.
//!
//! The program that wrote the records may be hostile, so every header is checked before it is followed. A walk can be
//! made in parts, so that its thread has time for other work.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use nix::sys::uio::pread;

use super::layout::DATA_OFFSET;
use super::published::Place;
use super::record::{HEADER, Header, Kind, align_header};
use super::segment_file::{At, published, word_at};
use crate::error::{Result, SystemError};
use crate::os::reserve;
use crate::ring::geometry::Geometry;

/// Bytes of the file to read at a time.
const LOOK: usize = 32 << 10;
/// How often to read an invalid header again: the writer may have been storing it.
const AGAIN: u32 = 3;
/// How often a walk that the writer overtakes starts again. After that, the rest of the walk is not worth it.
const LAPS: u32 = 16;

/// Where a walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkFrom {
    /// At the oldest whole record.
    Floor,
    /// Where a reader would begin that attaches now and wants everything: the floor, or the place that the floor is
    /// about to move to.
    NextFloor,
    /// Near the tail.
    Mark,
}

/// What a walk has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walked {
    /// The place after the newest record.
    Tail(Place),
    /// Nothing is wrong so far, and there is more.
    More,
    /// The writer overwrites records faster than this walk passes them.
    Overtaken,
    /// A record or a published place is not as the layout requires: where and why.
    Broken(String),
}

/// A walk along the chain, in parts.
#[derive(Debug)]
pub struct Walk {
    from: WalkFrom,
    at: Place,
    laps: u32,
    again: u32,
}

/// Why a correct writer never publishes or leads to this place, in a file with `length` bytes of data.
pub(super) fn implausible(place: Place, geometry: &Geometry, length: u64) -> Option<String> {
    let Place { pos, off, seq, .. } = place;
    if !place.is_plausible() {
        return Some(format!("no chain comes to position {pos} and message {seq}"));
    }
    let length = length.min(geometry.max_capacity);
    if length.checked_sub(HEADER).is_none_or(|last| off > last) {
        return Some(format!("offset {off} is outside the {length} bytes of data that there are"));
    }
    if align_header(off, u64::from(geometry.align)) != off {
        return Some(format!("offset {off} is no place for a header"));
    }
    None
}

impl Walk {
    /// Begins a walk in the segment behind `fd`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn begin(fd: BorrowedFd<'_>, from: WalkFrom) -> Result<Walk> {
        Ok(Walk { from, at: start(fd, from)?, laps: 0, again: 0 })
    }

    /// The place that the walk has reached.
    #[must_use]
    pub fn at(&self) -> Place {
        self.at
    }

    /// Continues the walk for about `most` bytes of the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn go_on(&mut self, fd: BorrowedFd<'_>, geometry: &Geometry, most: u64) -> Result<Walked> {
        let mut buffer = vec![0u8; LOOK];
        let mut read = 0;
        while read < most {
            read += LOOK as u64;
            let before = self.at;
            let found = self.look(fd, geometry, &mut buffer)?;
            // Acquire pairs with the Release fence that ends `Published::store` of the floor: if a byte was read that
            // overwrote a record, the floor that is read below has passed the place where reading began.
            fence(Ordering::Acquire);
            let floor = published(fd, At::Floor)?;
            if floor.pos <= before.pos && self.at.pos - floor.pos > geometry.max_capacity {
                // A whole chain is no longer than the data area.
                return Ok(Walked::Broken(format!("the records from offset {} go round in circles", floor.off)));
            }
            if floor.pos > before.pos {
                self.laps += 1;
                if self.laps > LAPS {
                    return Ok(Walked::Overtaken);
                }
                self.at = start(fd, self.from)?;
                continue;
            }
            match found {
                Walked::More => self.again = 0,
                Walked::Broken(_) if self.again < AGAIN => self.again += 1,
                found => return Ok(found),
            }
        }
        Ok(Walked::More)
    }

    /// Reads once, and passes the records whose headers were read.
    fn look(&mut self, fd: BorrowedFd<'_>, geometry: &Geometry, buffer: &mut [u8]) -> Result<Walked> {
        let length = reserve::length(fd)?.saturating_sub(DATA_OFFSET);
        if let Some(reason) = implausible(self.at, geometry, length) {
            return Ok(Walked::Broken(reason));
        }
        let (begin, strides) = (self.at.off, geometry.strides());
        let from = i64::try_from(DATA_OFFSET + begin).unwrap_or(i64::MAX);
        let got = pread(fd, buffer, from).map_err(|e| SystemError::new("read a segment's records", e))?;
        let mut at = self.at;
        loop {
            let ahead = usize::try_from(at.off - begin).unwrap_or(usize::MAX / 2);
            let Some(header) = buffer.get(..got).and_then(|read| word_at(read, ahead)).map(Header) else { break };
            let kind = header.kind();
            let wrong = |what: &str| {
                let Header(word) = header;
                Ok(Walked::Broken(format!("{word:#x} at offset {} {what} message {}", at.off, at.seq)))
            };
            if kind == Kind::Empty {
                self.at = at;
                return Ok(Walked::Tail(at));
            }
            if !header.is_for(at.seq) {
                return wrong("is no header of");
            }
            let next = match kind {
                Kind::Data { len } if len <= geometry.max_message => {
                    let stride = strides.of(len);
                    let (pos, off) = (at.pos + stride, at.off + stride);
                    Place { pos, off, seq: at.seq + 1, bytes: at.bytes.wrapping_add(len) }
                }
                Kind::Jump { target } => Place { pos: at.pos + HEADER, off: target, ..at },
                _ => return wrong("has an impossible length or kind for"),
            };
            if let Some(reason) = implausible(next, geometry, length) {
                return Ok(Walked::Broken(format!("after message {} at offset {}: {reason}", at.seq, at.off)));
            }
            at = next;
            if matches!(kind, Kind::Jump { .. }) {
                break;
            }
        }
        self.at = at;
        Ok(Walked::More)
    }
}

/// Why one of the places in the header is invalid for a reader that attaches now, whether or not the reader would begin
/// there.
///
/// # Errors
/// If the file cannot be read.
pub fn misplaced(fd: BorrowedFd<'_>, geometry: &Geometry) -> Result<Option<String>> {
    let length = reserve::length(fd)?.saturating_sub(DATA_OFFSET);
    for (what, at) in [("floor", At::Floor), ("next floor", At::NextFloor), ("mark", At::Mark)] {
        if let Some(reason) = implausible(published(fd, at)?, geometry, length) {
            return Ok(Some(format!("the {what}: {reason}")));
        }
    }
    Ok(None)
}

/// Where a walk begins now. The floor may be ahead of the other places for a moment.
fn start(fd: BorrowedFd<'_>, from: WalkFrom) -> Result<Place> {
    let floor = published(fd, At::Floor)?;
    let other = match from {
        WalkFrom::Floor => return Ok(floor),
        WalkFrom::NextFloor => published(fd, At::NextFloor)?,
        WalkFrom::Mark => published(fd, At::Mark)?,
    };
    Ok(if other.pos >= floor.pos { other } else { floor })
}
