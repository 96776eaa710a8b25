//! Words and published places of a segment, read from its file without mapping it.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use nix::sys::uio::pread;

use super::layout::SegmentHeader;
use super::published::{Place, PlaceCell, Published};
use crate::error::{Result, SystemError};

/// The largest number of reads of a place. A correct writer that replaces the place in the meantime spoils a read only
/// if it stores the same copy in the few nanoseconds in which the kernel copies it.
const MOST_READS: u32 = 256;

/// A place that a segment's header publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// Near the tail.
    Mark,
    /// The oldest whole record.
    Floor,
    /// Where the floor is about to move to.
    NextFloor,
}

/// A whole published place: either its check word says so, or the version was the same before and after. The place
/// belongs to the version that was read first, or to a later one.
pub(super) fn published(fd: BorrowedFd<'_>, at: At) -> Result<Place> {
    let at = match at {
        At::Mark => offset_of!(SegmentHeader, mark),
        At::Floor => offset_of!(SegmentHeader, floor),
        At::NextFloor => offset_of!(SegmentHeader, next_floor),
    };
    let version = || -> Result<u64> {
        let mut bytes = [0u8; 8];
        read_exact(fd, &mut bytes, at + offset_of!(Published, version))?;
        Ok(u64::from_le_bytes(bytes))
    };
    const FROM: usize = offset_of!(Published, checks);
    let mut before = version()?;
    for _ in 0..MOST_READS {
        // The order of two system calls does not determine the order in which the processor loads what they copy.
        // Acquire pairs with the Release store of the version in `Published::store`. What is read below is of this
        // version or of a later one, or a mixture; in a mixture, the check word matches neither.
        fence(Ordering::Acquire);
        let mut bytes = [0u8; size_of::<Published>() - FROM];
        read_exact(fd, &mut bytes, at + FROM)?;
        let copy = (before & 1) as usize;
        let first = offset_of!(Published, copies) - FROM + copy * size_of::<PlaceCell>();
        let place = Place {
            pos: word(&bytes, first + offset_of!(PlaceCell, pos)),
            off: word(&bytes, first + offset_of!(PlaceCell, off)),
            seq: word(&bytes, first + offset_of!(PlaceCell, seq)),
            bytes: word(&bytes, first + offset_of!(PlaceCell, bytes)),
        };
        if word(&bytes, copy * size_of::<u64>()) == place.check() {
            return Ok(place);
        }
        // Acquire pairs with the Release fence in `Published::store`: if any word came from a later copy, the version
        // has changed. If the version has not changed, the place is what the writer stored, whatever the check word is,
        // and the caller judges it.
        fence(Ordering::Acquire);
        let after = version()?;
        if before == after {
            return Ok(place);
        }
        before = after;
    }
    let reason = format!("its writer replaced a published place during each of {MOST_READS} reads");
    Err(SystemError::new("read a segment's header", std::io::Error::new(std::io::ErrorKind::ResourceBusy, reason)))
}

/// Fills `into` with the bytes of the file from `at` on.
pub(super) fn read_exact(fd: BorrowedFd<'_>, into: &mut [u8], at: usize) -> Result<()> {
    let from = i64::try_from(at).unwrap_or(i64::MAX);
    let got = pread(fd, into, from).map_err(|e| SystemError::new("read a segment's header", e))?;
    if got != into.len() {
        let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(SystemError::new(format!("read a segment's header: {got} of {} bytes at {at}", into.len()), short));
    }
    Ok(())
}

/// The word at an offset, or 0 if not all of its bytes are there.
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    word_at(bytes, at).unwrap_or(0)
}

/// The word at an offset, if all of its bytes are there.
pub(super) fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes)
}
