//! A place that one process replaces while others read it.
//!
//! There are two copies, and a version that says which copy is valid. A writer that dies at any instruction leaves the valid copy
//! whole, so no process ever waits for a dead process to finish a store. A seqlock could not promise that.

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
    /// No chain gets this far, in bytes or messages: 2^63 bytes are 29 years at 10 GB/s. A place beyond this limit is invalid, so
    /// arithmetic on valid places does not overflow.
    pub const FARTHEST: u64 = 1 << 63;

    /// Whether a correct writer can have reached this place.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        self.pos <= Self::FARTHEST && self.seq <= Self::FARTHEST
    }
}

/// The number of looks at a place that a writer keeps replacing. They take a millisecond or more.
const MOST_LOOKS: u32 = 1 << 16;

/// A replaceable [`Place`] in shared memory.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct Published {
    /// Copy `version % 2` is the one to read.
    pub version: AtomicU64,
    /// Keeps the copies on a cache line of their own.
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
        // Release pairs with the first Acquire fence in `try_load`: a process that sees this version sees its copy.
        self.version.store(version, Ordering::Release);
        // Release pairs with the second Acquire fence in `try_load`, and with those in `has_passed` and `is_unchanged`. A
        // process that sees a store after this fence (the next copy, or payload bytes written below a new floor) also sees this
        // version.
        fence(Ordering::Release);
    }

    /// The present place, or `None` if it was replaced meanwhile. Then the caller may try again.
    #[inline]
    pub fn try_load(&self) -> Option<Place> {
        // Relaxed loads and fences, because the mapping may be read-only: see `look`.
        let version = self.version.load(Ordering::Relaxed);
        // Acquire pairs with the Release store of the version in `store`.
        fence(Ordering::Acquire);
        let place = self.copies[(version & 1) as usize].load();
        // Acquire pairs with the Release fence in `store`: if any field came from a later copy, the version has changed. The next
        // copy in the same storage is the one after next, and its store may begin as soon as the version has moved by one.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(place)
    }

    /// The present place. Never waits for a writer that died. `None` if a writer replaces the place without any pause, which a
    /// correct writer never does.
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

    /// Whether the place lies behind `pos`. For a floor, this says whether the bytes at `pos` may have been overwritten before
    /// the reads that came before this call. Also true if the place cannot be read.
    #[inline]
    pub fn has_passed(&self, pos: u64) -> bool {
        // Acquire pairs with the Release fence that ends `store`: if one of the earlier reads saw a byte that was written after
        // the place was replaced, the load below sees the new place.
        fence(Ordering::Acquire);
        self.load().is_none_or(|place| place.pos > pos)
    }
}

/// Whether these bits of a reader's control word are as `expected`, so that everything that was read before this call is valid.
/// The writer sets the bit for an eviction, replaces the floor, and only then overwrites what that reader held; the daemon
/// raises the number of moves before it looks where the chain of records ends. If the daemon sets the bit for an eviction, the
/// generation, which it raises next, carries the order to the writer.
#[inline(always)]
pub fn is_unchanged(control: &AtomicU32, bits: u32, expected: u32) -> bool {
    // Acquire pairs with the Release fence that ends `store` of the floor: if any byte that was read before this call is a new
    // one, this load sees the bit. As a rule, `memcpy` or vector instructions have read the bytes, and not atomic loads. The
    // instruction of the fence (`dmb ishld` on 64-bit Arm) orders loads of any width. For the number of moves see
    // `reader::moves`.
    fence(Ordering::Acquire);
    control.load(Ordering::Relaxed) & bits == expected
}
