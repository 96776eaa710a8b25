//! A place that one process replaces while others read it.
//!
//! There are two copies, and a version that says which copy is valid. A writer that dies at any instruction leaves the valid copy
//! whole, so no process ever waits for a dead process to finish a store. A seqlock could not promise that.
//!
//! Each copy has a check word. A process that reads the header with a system call for each look cannot look at the version twice
//! in the time that the writer takes for two stores; it knows by the check word that a copy is whole.

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
    /// A word that is another one, but for one chance in 2^64 or so, if some fields are of one place and some of another.
    #[inline]
    pub fn check(self) -> u64 {
        // A polynomial of the fields at an odd number without a pattern: small differences do not cancel each other out. The
        // first term tells zeroed memory from a place.
        const AT: u64 = 0x9e37_79b9_7f4a_7c15;
        [self.pos, self.off, self.seq, self.bytes]
            .into_iter()
            .fold(AT, |check, field| check.wrapping_mul(AT).wrapping_add(field))
    }

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
    pub reserved: [AtomicU64; 5],
    /// Of each copy its [check word](Place::check).
    pub checks: [AtomicU64; 2],
    /// The two copies.
    pub copies: [PlaceCell; 2],
}

impl Published {
    /// Replaces the place. One process at a time may do so.
    #[inline]
    pub fn store(&self, place: Place) {
        let version = self.version.load(Ordering::Relaxed).wrapping_add(1);
        self.copies[(version & 1) as usize].store(place);
        // A process that reads the check word compares it with the copy that it has seen, so its order does not matter.
        self.checks[(version & 1) as usize].store(place.check(), Ordering::Relaxed);
        // Release pairs with the first Acquire fence in `try_load`: a process that sees this version sees its copy.
        self.version.store(version, Ordering::Release);
        // Release pairs with the second Acquire fence in `try_load`, and with those in `has_passed` and `is_unchanged`. A
        // process that sees a store after this fence (the next copy, or payload bytes written below a new floor) also sees this
        // version.
        fence(Ordering::Release);
    }

    /// The present place, or `None` if it was replaced meanwhile. Then the caller may try again.
    #[inline]
    pub(crate) fn try_load(&self) -> Option<Place> {
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
    pub(crate) fn has_passed(&self, pos: u64) -> bool {
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
pub(crate) fn is_unchanged(control: &AtomicU32, bits: u32, expected: u32) -> bool {
    // Acquire pairs with the Release fence that ends `store` of the floor: if any byte that was read before this call is a new
    // one, this load sees the bit. As a rule, `memcpy` or vector instructions have read the bytes, and not atomic loads. The
    // instruction of the fence (`dmb ishld` on 64-bit Arm) orders loads of any width. For the number of moves see
    // `reader::moves`.
    fence(Ordering::Acquire);
    control.load(Ordering::Relaxed) & bits == expected
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_check_word_is_the_documented_polynomial_and_tells_a_mixture_of_two_places() {
        let x = 0x9e37_79b9_7f4a_7c15u64;
        let place = |n: u64| Place { pos: n * 4096, off: n * 4096 % 65_536 + 56, seq: n * 64, bytes: n * 3000 };
        for n in 0..1000 {
            let (old, new) = (place(n), place(n + 1));
            let terms = [(old.pos, 3), (old.off, 2), (old.seq, 1), (old.bytes, 0)];
            let sum = terms.iter().fold(x.wrapping_pow(5), |sum, (field, power)| {
                sum.wrapping_add(field.wrapping_mul(x.wrapping_pow(*power)))
            });
            assert_eq!(old.check(), sum);
            for newer in 1..15 {
                let pick = |bit: u32, old: u64, new: u64| if newer >> bit & 1 == 1 { new } else { old };
                let mixed = Place {
                    pos: pick(0, old.pos, new.pos),
                    off: pick(1, old.off, new.off),
                    seq: pick(2, old.seq, new.seq),
                    bytes: pick(3, old.bytes, new.bytes),
                };
                assert!(![old.check(), new.check()].contains(&mixed.check()), "{mixed:?}");
            }
        }
    }
}
