//! Where the next record goes: pure bookkeeping of the data area, which only the writer has.
//!
//! The chain of records from the floor (the oldest whole record) to the tail lies in *extents*, which are runs without
//! a jump inside:
//!
//! ```text
//!            base                                            capacity
//! offsets     | extent 2 (newest) ......t      | extent 1 ........|
//!                                       ^tail   ^floor
//! ```
//!
//! A record may be placed at the tail if the record and the header behind it end before the next extent and the
//! capacity. Otherwise, the writer jumps to the largest hole between extents. Wrapping around, using new space after a
//! growth, and leaving the upper part before a shrink all follow this one rule, with different capacities.

use std::collections::VecDeque;

use super::published::Place;
use super::record::{HEADER, align_header, first_header};

/// The largest number of extents at a time. With that many, the writer waits instead of jumping once more.
pub(crate) const MAX_EXTENTS: usize = 32;

/// A run of records that is contiguous in offset and in position. All extents except the newest end with the header of
/// a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Position of the first header.
    pub pos: u64,
    /// Offset of the first header.
    pub off: u64,
    /// Length in bytes, including the final jump.
    pub len: u64,
}

impl Extent {
    fn end(self) -> u64 {
        self.off + self.len
    }
}

/// What to do with a record of a given stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The record fits at the tail; everything up to `limit` is free.
    Here {
        /// First offset that must not be written.
        limit: u64,
    },
    /// The record fits after a jump.
    Jump {
        /// The offset to jump to.
        target: u64,
    },
    /// The record fits nowhere until older records are given up.
    Full,
    /// The record would not fit into an empty ring of this capacity.
    TooLarge,
}

/// The data area's bookkeeping.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    extents: VecDeque<Extent>,
    capacity: u64,
    align: u64,
}

impl Plan {
    /// An empty ring with this tail.
    #[must_use]
    pub(crate) fn new(capacity: u64, align: u64, tail: Place) -> Plan {
        let mut extents = VecDeque::with_capacity(MAX_EXTENTS + 1);
        extents.push_back(Extent { pos: tail.pos, off: tail.off, len: 0 });
        Plan { extents, capacity, align }
    }

    /// The capacity that placement respects, in bytes.
    #[must_use]
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Changes the capacity. Records above a smaller capacity stay until the floor has passed them.
    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    /// Offset of the lowest header place.
    #[must_use]
    pub(crate) fn base(&self) -> u64 {
        first_header(self.align)
    }

    fn newest(&self) -> Extent {
        self.extents[self.extents.len() - 1]
    }

    /// Offset of the tail.
    #[must_use]
    pub(crate) fn tail_off(&self) -> u64 {
        self.newest().end()
    }

    /// Position of the tail.
    #[must_use]
    pub(crate) fn tail_pos(&self) -> u64 {
        let newest = self.newest();
        newest.pos + newest.len
    }

    /// The end of the bytes that must not be touched: live records, and the place of the header at the tail.
    #[must_use]
    pub(crate) fn highest(&self) -> u64 {
        let live = self.extents.iter().map(|e| e.end()).max().unwrap_or(0);
        live.max(self.tail_off() + HEADER)
    }

    /// First offset at or after `off` that is live or beyond the capacity.
    fn limit_from(&self, off: u64) -> u64 {
        let tail = self.tail_off();
        let mut limit = if tail >= off { self.capacity.min(tail) } else { self.capacity };
        for extent in &self.extents {
            if extent.len > 0 && extent.off >= off {
                limit = limit.min(extent.off);
            }
        }
        limit
    }

    /// Whether a live extent or the tail covers `off`.
    fn is_live(&self, off: u64) -> bool {
        let tail = self.tail_off();
        (tail..tail + HEADER).contains(&off) || self.extents.iter().any(|e| (e.off..e.end()).contains(&off))
    }

    /// Where a record of `stride` bytes goes.
    #[must_use]
    pub(crate) fn place(&self, stride: u64) -> Placement {
        let base = self.base();
        let need = stride + HEADER;
        if base + need > self.capacity {
            return Placement::TooLarge;
        }
        let tail = self.tail_off();
        let limit = self.limit_from(tail + 1);
        if tail + need <= limit {
            return Placement::Here { limit };
        }
        if self.extents.len() >= MAX_EXTENTS {
            return Placement::Full;
        }
        let ends = self.extents.iter().map(|e| align_header(e.end(), self.align));
        let hole = ends
            .chain([base])
            .filter(|start| *start != tail && !self.is_live(*start))
            .map(|start| (self.limit_from(start).saturating_sub(start), start))
            .max();
        match hole {
            Some((room, target)) if room >= need => Placement::Jump { target },
            // The tail of the empty ring divides the free space in two. Once the tail is at the base, the space is
            // whole again.
            _ if self.is_drained() && tail >= base + HEADER => Placement::Jump { target: base },
            _ => Placement::Full,
        }
    }

    /// Whether nothing is live except the tail.
    #[must_use]
    pub(crate) fn is_drained(&self) -> bool {
        self.extents.len() == 1 && self.newest().len == 0
    }

    /// A record of `stride` bytes was put at the tail.
    #[inline]
    pub(crate) fn push(&mut self, stride: u64) {
        if let Some(newest) = self.extents.back_mut() {
            newest.len += stride;
        }
    }

    /// A jump was put at the tail.
    pub(crate) fn jump(&mut self, target: u64) {
        self.push(HEADER);
        let pos = self.tail_pos();
        self.extents.push_back(Extent { pos, off: target, len: 0 });
    }

    /// Gives up everything before `pos`, which is a record boundary between floor and tail.
    pub(crate) fn release(&mut self, pos: u64) {
        while self.extents.len() > 1 && self.extents[0].pos + self.extents[0].len <= pos {
            self.extents.pop_front();
        }
        if let Some(oldest) = self.extents.front_mut() {
            let passed = pos.saturating_sub(oldest.pos).min(oldest.len);
            oldest.pos += passed;
            oldest.off += passed;
            oldest.len -= passed;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::record::{PUBLISH_TIMES, Strides, TIME, first_header};
    use proptest::prelude::*;

    /// The offset of the header at a position. A position at the end of an extent is the start of the next one.
    fn offset_of(plan: &Plan, pos: u64) -> Option<u64> {
        let last = plan.extents.len() - 1;
        plan.extents.iter().enumerate().find_map(|(i, e)| {
            let within = pos.checked_sub(e.pos)?;
            (within < e.len || (i == last && within == e.len)).then_some(e.off + within)
        })
    }

    fn tail(off: u64) -> Place {
        Place { pos: 1000, off, seq: 0, bytes: 0 }
    }

    #[test]
    fn a_full_ring_waits_and_a_read_one_wraps() {
        let mut plan = Plan::new(4096, 16, tail(56));
        for _ in 0..50 {
            assert_eq!(plan.place(80), Placement::Here { limit: 4096 });
            plan.push(80);
        }
        assert_eq!(plan.place(80), Placement::Full);
        plan.release(1000 + 80);
        assert_eq!(plan.place(80), Placement::Full, "a record needs room for the header behind it");
        plan.release(1000 + 160);
        assert_eq!(plan.place(80), Placement::Jump { target: 56 });
        plan.jump(56);
        assert_eq!(plan.place(80), Placement::Here { limit: 216 });
    }

    #[test]
    fn a_grown_ring_is_used_at_once_although_the_bottom_is_unread() {
        let mut plan = Plan::new(4096, 16, tail(2056));
        plan.push(1968);
        plan.jump(56);
        plan.push(1968);
        assert_eq!(plan.place(80), Placement::Full);
        plan.set_capacity(8192);
        assert_eq!(plan.place(80), Placement::Jump { target: 4040 });
    }

    #[test]
    fn a_shrunk_ring_leaves_the_upper_part() {
        let mut plan = Plan::new(8192, 16, tail(6008));
        plan.push(96);
        plan.set_capacity(4096);
        assert!(plan.highest() > 4096);
        assert_eq!(plan.place(16), Placement::Jump { target: 56 });
        plan.jump(56);
        assert!(plan.highest() > 4096);
        plan.release(plan.tail_pos());
        assert!(plan.highest() <= 4096);
    }

    #[test]
    fn the_largest_message_gets_through_from_any_tail() {
        for (align, features) in [(16u64, 0), (256, 0), (16, PUBLISH_TIMES), (256, PUBLISH_TIMES)] {
            let strides = Strides::new(align, features);
            let largest = strides.of(strides.largest_message(8192));
            for off in (first_header(align)..8000).step_by(align as usize) {
                let mut plan = Plan::new(8192, align, tail(off));
                let mut jumps = 0;
                while let Placement::Jump { target } = plan.place(largest) {
                    plan.jump(target);
                    plan.release(plan.tail_pos());
                    jumps += 1;
                    assert!(jumps < 3);
                }
                assert!(matches!(plan.place(largest), Placement::Here { .. }), "tail at {off}");
            }
        }
    }

    /// Compares the plan with a map of every byte: nothing live is ever overwritten, and nothing is placed above the
    /// capacity.
    #[derive(Clone, Debug)]
    enum Step {
        Push(u64),
        Read(usize),
        Capacity(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u64..3000).prop_map(Step::Push),
            3 => (1usize..6).prop_map(Step::Read),
            1 => (1u64..9).prop_map(|pages| Step::Capacity(pages * 4096)),
        ];
        proptest::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn no_live_byte_is_ever_written(
            steps in steps(),
            align in prop_oneof![Just(16u64), Just(64), Just(512)],
            features in prop_oneof![Just(0), Just(PUBLISH_TIMES)],
        ) {
            let base = first_header(align);
            let strides = Strides::new(align, features);
            // Before the header.
            let time = if features == 0 { 0 } else { TIME };
            let mut plan = Plan::new(8192, align, tail(base));
            // (end position, offset, bytes of the chain) of everything live, oldest first; jumps included, which have no time
            let mut live: VecDeque<(u64, u64, u64)> = VecDeque::new();
            let bytes = |&(_, off, n): &(u64, u64, u64)| if n == HEADER { off..off + n } else { off - time..off + n - time };
            for step in steps {
                match step {
                    Step::Read(n) => {
                        for _ in 0..n {
                            let Some((end, ..)) = live.pop_front() else { break };
                            plan.release(end);
                        }
                    }
                    Step::Capacity(capacity) => plan.set_capacity(capacity),
                    Step::Push(len) => {
                        let stride = strides.of(len);
                        loop {
                            match plan.place(stride) {
                                Placement::Here { limit } => {
                                    let off = plan.tail_off();
                                    prop_assert!(off + stride + HEADER <= limit && limit <= plan.capacity());
                                    prop_assert_eq!((off + HEADER) % align, 0);
                                    for held in live.iter().map(bytes) {
                                        prop_assert!(off + stride + HEADER <= held.start || off - time >= held.end);
                                    }
                                    plan.push(stride);
                                    live.push_back((plan.tail_pos(), off, stride));
                                    break;
                                }
                                Placement::Jump { target } => {
                                    for held in live.iter().map(bytes) {
                                        prop_assert!(target + HEADER <= held.start || target - time >= held.end);
                                    }
                                    let off = plan.tail_off();
                                    prop_assert!(target + HEADER <= off || target - time >= off + HEADER);
                                    prop_assert!(target + HEADER <= plan.capacity());
                                    plan.jump(target);
                                    live.push_back((plan.tail_pos(), off, HEADER));
                                }
                                Placement::Full => {
                                    let Some((end, ..)) = live.pop_front() else {
                                        return Err(TestCaseError::fail("full although nothing is live"));
                                    };
                                    plan.release(end);
                                }
                                Placement::TooLarge => {
                                    prop_assert!(base + stride + HEADER > plan.capacity());
                                    break;
                                }
                            }
                        }
                    }
                }
                if let Some((end, off, n)) = live.front() {
                    prop_assert_eq!(offset_of(&plan, end - n), Some(*off));
                }
            }
        }
    }
}
