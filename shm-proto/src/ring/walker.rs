//! A place that moves along the chain of records: the tail of the writer, or the place of a reader.

use super::published::Place;
use super::record::HEADER;

/// A place in the chain that moves with every message.
///
/// Offset and position grow together until the next jump. So only the offset is counted, and the position is the offset plus a
/// constant. This saves each side one store per message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walker {
    /// Offset of the header in the data area.
    pub(super) off: u64,
    /// Messages before this place since the segment was made.
    pub(super) seq: u64,
    /// Position less offset, modulo 2^64.
    shift: u64,
}

impl Walker {
    pub(super) fn at(place: Place) -> Walker {
        Walker { off: place.off, seq: place.seq, shift: place.pos.wrapping_sub(place.off) }
    }

    /// Position: bytes of the chain before this place.
    #[inline(always)]
    pub(super) fn pos(self) -> u64 {
        self.off.wrapping_add(self.shift)
    }

    /// Passes a record, and returns the place before it.
    #[inline(always)]
    pub(super) fn pass(&mut self, stride: u64) -> Walker {
        let before = *self;
        self.off += stride;
        self.seq += 1;
        before
    }

    /// Follows a jump.
    pub(super) fn jump(&mut self, target: u64) {
        let pos = self.pos() + HEADER;
        self.off = target;
        self.shift = pos.wrapping_sub(target);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn positions_grow_by_a_header_with_a_jump_to_wherever() {
        let mut walker = Walker::at(Place { pos: 1 << 40, off: 4088, seq: 7, bytes: 0 });
        assert_eq!(walker.pass(72).off, 4088);
        assert_eq!((walker.pos(), walker.off, walker.seq), ((1 << 40) + 72, 4160, 8));
        for target in [0, 1 << 41, 56] {
            let before = walker.pos();
            walker.jump(target);
            assert_eq!((walker.pos(), walker.off, walker.seq), (before + HEADER, target, 8));
        }
    }
}
