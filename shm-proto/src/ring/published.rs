//! A place that one process replaces while others read it.
//!
//! Two copies, and a version that says which one holds. A writer that dies at any instruction leaves the copy named by the
//! version whole, so that nobody ever waits for a dead process to finish a store; a seqlock would not give that.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, spin};

/// A place in the record chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Position: bytes of the chain before this record since the segment was made. Only grows.
    pub pos: u64,
    /// Offset of the record's header in the data area.
    pub off: u64,
    /// Messages before this record since the segment was made.
    pub seq: u64,
    /// Payload bytes before this record since the segment was made.
    pub bytes: u64,
}

/// The storage of one copy.
#[repr(C)]
#[derive(Debug, Default)]
pub struct PlaceCell {
    /// [`Place::pos`].
    pub pos: AtomicU64,
    /// [`Place::off`].
    pub off: AtomicU64,
    /// [`Place::seq`].
    pub seq: AtomicU64,
    /// [`Place::bytes`].
    pub bytes: AtomicU64,
}

impl PlaceCell {
    fn load(&self) -> Place {
        Place {
            pos: self.pos.load(Ordering::Relaxed),
            off: self.off.load(Ordering::Relaxed),
            seq: self.seq.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    #[inline]
    fn store(&self, place: Place) {
        self.pos.store(place.pos, Ordering::Relaxed);
        self.off.store(place.off, Ordering::Relaxed);
        self.seq.store(place.seq, Ordering::Relaxed);
        self.bytes.store(place.bytes, Ordering::Relaxed);
    }
}

impl Place {
    /// No chain gets as far, in bytes or messages: 2^63 bytes are 29 years at 10 GB/s. What says it did is no place, and
    /// arithmetic on what remains does not overflow.
    pub const FARTHEST: u64 = 1 << 63;

    /// Whether a writer that is in its senses can have come here.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        self.pos <= Self::FARTHEST && self.seq <= Self::FARTHEST
    }
}

/// Looks at a place that is replaced all the time before it is given up; a thousandth of a second and more.
const MOST_LOOKS: u32 = 1 << 16;

/// A replaceable [`Place`] in shared memory.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Published {
    /// Copy `version % 2` is the one to read.
    pub version: AtomicU64,
    /// Keeps the copies on a line of their own.
    pub reserved: [AtomicU64; 7],
    /// The two copies.
    pub copies: [PlaceCell; 2],
}

impl Published {
    /// Replaces the place. One process at a time may do so.
    #[inline]
    pub fn store(&self, place: Place) {
        let version = self.version.load(Ordering::Relaxed).wrapping_add(1);
        self.copies[(version & 1) as usize].store(place);
        // Release: pairs with the first Acquire fence in `try_load`; whoever sees this version sees its copy.
        self.version.store(version, Ordering::Release);
        // Release: pairs with the second Acquire fence in `try_load`, and with those in `has_passed` and `is_unchanged`.
        // Whoever sees a store that comes after this one (the next copy,
        // or payload bytes written below a new floor) sees this version too.
        fence(Ordering::Release);
    }

    /// The present place, or `None` when it was replaced meanwhile: try again.
    #[inline]
    pub fn try_load(&self) -> Option<Place> {
        // Relaxed loads and fences, because the mapping may be read-only: see `look`.
        let version = self.version.load(Ordering::Relaxed);
        // Acquire: pairs with the Release store of the version in `store`.
        fence(Ordering::Acquire);
        let place = self.copies[(version & 1) as usize].load();
        // Acquire: pairs with the Release fence in `store`. If any field came from a later copy, the version has moved. That
        // copy is the next but one, so a version that has moved by one would do only if nobody were writing.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(place)
    }

    /// The present place. Never waits for a writer that died; `None` for one that replaces it without any pause, as none does
    /// that is in its senses.
    pub fn load(&self) -> Option<Place> {
        for _ in 0..MOST_LOOKS {
            let place = self.try_load();
            if place.is_some() {
                return place;
            }
            spin();
        }
        None
    }

    /// Whether the place lies behind `pos`: for a floor, whether what stood at `pos` may have been overwritten before the
    /// reads that came before this call. Also when no place can be had.
    #[inline]
    pub fn has_passed(&self, pos: u64) -> bool {
        // Acquire: pairs with the Release fence that ends `store`. If one of the earlier reads saw a byte written after the
        // place was replaced, the load below sees that place.
        fence(Ordering::Acquire);
        self.load().is_none_or(|place| place.pos > pos)
    }
}

/// Whether these bits of a reader's control word are what they are `expected` to be, so that everything that was read before
/// this call can be believed. The writer sets the bit for an eviction, replaces the floor, and only then overwrites what that
/// reader held; the daemon raises the number of moves before it looks where the chain of records ends. If the
/// daemon sets the bit for an eviction, the generation, which it raises next, carries the order to the writer.
#[inline(always)]
pub fn is_unchanged(control: &AtomicU32, bits: u32, expected: u32) -> bool {
    // Acquire: pairs with the Release fence that ends `store` of the floor. If any byte read before this was an overwriting
    // one, the bit is seen. The bytes were read by `memcpy` or by vectors, as a rule, and not by atomic loads; the fence's
    // instruction (`dmb ishld` on 64-bit Arm) orders loads of any width. For the number of moves see `reader::moves`.
    fence(Ordering::Acquire);
    control.load(Ordering::Relaxed) & bits == expected
}
