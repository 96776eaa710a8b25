//! A place that one process replaces while others read it.
//!
//! Two copies, and a version that says which one holds. A writer that dies at any instruction leaves the copy named by the
//! version whole, so that nobody ever waits for a dead process to finish a store; a seqlock would not give that.

use crate::sync::{AtomicU64, Ordering, fence, spin};

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
        // Release: pairs with the Acquire in `load`; whoever sees this version sees its copy.
        self.version.store(version, Ordering::Release);
        // Release: pairs with the Acquire fence in `load`. Whoever sees a store that comes after this one (the next copy,
        // or payload bytes written below a new floor) sees this version too.
        fence(Ordering::Release);
    }

    /// The present place, or `None` when it was replaced twice meanwhile: try again.
    #[inline]
    pub fn try_load(&self) -> Option<Place> {
        // Acquire: pairs with the Release in `store`.
        let version = self.version.load(Ordering::Acquire);
        let place = self.copies[(version & 1) as usize].load();
        // Acquire: pairs with the Release fence in `store`. If any field came from a later copy, the version has moved.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(place)
    }

    /// The present place. Waits only for a writer that replaces it without pause, never for one that died.
    pub fn load(&self) -> Place {
        loop {
            if let Some(place) = self.try_load() {
                return place;
            }
            spin();
        }
    }

    /// Whether the place lies behind `pos`: for a floor, whether what stood at `pos` may have been overwritten before the
    /// reads that came before this call.
    #[inline]
    pub fn has_passed(&self, pos: u64) -> bool {
        // Acquire: pairs with the Release fence that ends `store`. If one of the earlier reads saw a byte written after the
        // place was replaced, the load below sees that place.
        fence(Ordering::Acquire);
        self.load().pos > pos
    }
}
