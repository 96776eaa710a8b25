//! The space in the ring: where the next record goes, which records may be given up, and changes of capacity.

use std::sync::atomic::Ordering;

use super::lease::Lease;
use super::recover::{Recovered, step};
use super::tail::Tail;
use crate::os::clock::monotonic_ns;
use crate::ring::floor;
use crate::ring::geometry::Geometry;
use crate::ring::layout::MARK_EVERY;
use crate::ring::link::ToDaemon;
use crate::ring::marks::Marks;
use crate::ring::plan::{Placement, Plan};
use crate::ring::published::Place;
use crate::ring::record::{HEADER, first_header};
use crate::ring::wake::Barrier;

/// How long to wait after a refusal before growth is requested again.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// How long a channel that does not block waits for the daemon's answer about growth.
pub(super) const ANSWER_NS: u64 = 1_000_000_000;
/// The shortest time between two lines to the daemon about a full ring.
const OVERFLOW_INTERVAL_NS: u64 = 1_000_000_000;

/// A writer that takes longer than this for what the tail was opened for looks at everything else before each message: so it
/// soon notices that the daemon has died. A daemon that comes in its place can announce nothing before it was spoken to.
const RARE_NS: u64 = 20_000_000;

/// What is known about growth.
#[derive(Debug, Default)]
struct Growth {
    /// When growth was requested, if there is no answer yet.
    asked_ns: Option<u64>,
    /// The capacity requested last, in bytes.
    capacity: u64,
    /// After a refusal, do not request again before this time, unless for less.
    not_before_ns: u64,
    /// The reason for the last refusal.
    refusal: Option<String>,
}

/// A smaller capacity that waits for the readers, and the daemon's number for the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shrink {
    pub(super) capacity: u64,
    pub(super) id: u32,
    /// Nobody has asked for it.
    pub(super) yields: bool,
}

/// The result of an attempt to move the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Floor {
    /// The floor has moved.
    Moved,
    /// A reader still needs the oldest message.
    Stays,
    /// The link must be read first, because a reader may be attaching.
    News,
}

#[derive(Debug)]
pub(super) struct Space {
    plan: Plan,
    marks: Marks,
    floor: Place,
    /// Alignment of payloads in bytes.
    align: u64,
    max_capacity: u64,
    barrier: Barrier,
    growth: Growth,
    shrink: Option<Shrink>,
    opened: Opened,
    overflow_told_ns: u64,
}

/// For how much the tail was opened last, where and when.
#[derive(Debug, Default)]
struct Opened {
    ahead: u64,
    pos: u64,
    at_ns: u64,
}

impl Space {
    pub(super) fn new(recovered: Recovered, geometry: &Geometry, capacity: u64, barrier: Barrier) -> Space {
        let Recovered { mut plan, marks, floor, .. } = recovered;
        plan.set_capacity(capacity);
        Space {
            plan,
            marks,
            floor,
            align: u64::from(geometry.align),
            max_capacity: geometry.max_capacity,
            barrier,
            growth: Growth::default(),
            shrink: None,
            opened: Opened::default(),
            overflow_told_ns: 0,
        }
    }

    #[inline]
    pub(super) fn floor(&self) -> Place {
        self.floor
    }

    #[inline]
    pub(super) fn capacity(&self) -> u64 {
        self.plan.capacity()
    }

    /// The smallest capacity in which a record of this stride has space.
    pub(super) fn needed_for(&self, stride: u64) -> u64 {
        first_header(self.align) + stride + HEADER
    }

    /// Brings the plan up to the tail.
    #[inline]
    pub(super) fn catch_up(&mut self, tail: &Tail) {
        let written = tail.pos() - self.plan.tail_pos();
        if written > 0 {
            self.plan.push(written);
        }
    }

    /// Brings the plan up to the tail, and notes a boundary if one is due.
    #[inline]
    pub(super) fn settle(&mut self, tail: &Tail) {
        self.catch_up(tail);
        self.marks.note(tail.place());
    }

    /// Where a message of `len` bytes goes. If that is at the tail, this opens the tail for it, and for a busy writer also for
    /// other messages, at most until the next mark is due.
    #[inline]
    pub(super) fn place(&mut self, tail: &mut Tail, len: u64) -> Placement {
        let (now, pos) = (monotonic_ns(), tail.pos());
        let Opened { ahead, pos: before, at_ns } = self.opened;
        let is_rare = now.saturating_sub(at_ns) > RARE_NS;
        // The header behind the last record has to fit, too.
        let more = 2 * (pos - before + HEADER);
        let ahead = if is_rare { 0 } else { ahead.max(more).min(MARK_EVERY) };
        self.opened = Opened { ahead, pos, at_ns: now };
        tail.open(&self.plan, len, ahead.min(self.marks.interval()))
    }

    /// Opens the tail for many messages the next time: one after the other would become visible before its batch.
    pub(super) fn expect_batch(&mut self, tail: &Tail) {
        self.opened = Opened { ahead: MARK_EVERY, pos: tail.pos(), at_ns: monotonic_ns() };
    }

    /// Makes all readers continue at another offset. The caller must wake readers that sleep in front of the jump.
    pub(super) fn jump(&mut self, tail: &mut Tail, target: u64) {
        tail.jump(target);
        self.plan.jump(target);
    }

    /// Moves the floor to the next mark, or to the tail, if that is not beyond `allowed`.
    #[inline]
    pub(super) fn give_up_part(&mut self, tail: &Tail, lease: &Lease, allowed: u64) -> Floor {
        let place = match self.marks.after(self.floor.pos) {
            Some(mark) if mark.pos <= allowed => mark,
            _ if allowed == tail.pos() && allowed > self.floor.pos => tail.place(),
            _ => return Floor::Stays,
        };
        self.move_floor(tail, lease, place)
    }

    /// The last record boundary at or before `pos`. Fails if the chain of records is broken.
    pub(super) fn boundary(&self, tail: &Tail, geometry: &Geometry, pos: u64) -> Result<Place, String> {
        let mut place = self.floor;
        while place.pos < pos {
            // Records lie within the capacity that the daemon allows, or allowed before a shrink.
            match step(tail.segment(), place, geometry, self.max_capacity)? {
                Some(next) if next.pos <= pos => place = next,
                _ => break,
            }
        }
        Ok(place)
    }

    /// The first noted boundary after the floor, or the tail.
    pub(super) fn next_boundary(&mut self, tail: &Tail) -> Place {
        self.marks.after(self.floor.pos).unwrap_or_else(|| tail.place())
    }

    /// Moves the floor, unless it is already there.
    #[inline]
    pub(super) fn move_floor(&mut self, tail: &Tail, lease: &Lease, to: Place) -> Floor {
        if to.pos <= self.floor.pos {
            return Floor::Stays;
        }
        let header = tail.header();
        let is_news = || lease.has_news(&header.notes);
        if !floor::advance(&header.next_floor, &header.floor, (self.floor, to), is_news, self.barrier) {
            return Floor::News;
        }
        self.floor = to;
        self.plan.release(to.pos);
        Floor::Moved
    }

    /// From now on, places nothing above this capacity.
    fn use_capacity(&mut self, tail: &mut Tail, capacity: u64) {
        let capacity = capacity.min(self.max_capacity);
        self.plan.set_capacity(capacity);
        self.marks.fit(capacity);
        tail.close();
    }

    /// The daemon allows the writer to use more.
    pub(super) fn grown(&mut self, tail: &mut Tail, capacity: u64, done: bool) {
        self.shrink = None;
        self.use_capacity(tail, capacity);
        let counters = tail.counters();
        counters.pending.store(0, Ordering::Relaxed);
        counters.capacity.store(self.plan.capacity(), Ordering::Relaxed);
        if done {
            counters.resizes.fetch_add(1, Ordering::Relaxed);
        }
        self.growth = Growth::default();
    }

    /// The daemon refuses growth, or cannot be asked.
    pub(super) fn not_grown(&mut self, reason: String) {
        self.growth.asked_ns = None;
        self.growth.not_before_ns = monotonic_ns().saturating_add(ASK_AGAIN_NS);
        self.growth.refusal = Some(reason);
    }

    /// Another daemon serves this writer. It may not know what the one before was asked for.
    pub(super) fn ask_again(&mut self) {
        (self.growth.asked_ns, self.growth.not_before_ns) = (None, 0);
    }

    /// The reason for the last refusal of growth.
    pub(super) fn refusal(&self) -> Option<String> {
        self.growth.refusal.clone()
    }

    /// When the daemon was asked for growth, if it has not answered yet.
    pub(super) fn asked_ns(&self) -> Option<u64> {
        self.growth.asked_ns
    }

    /// Asks the daemon for at least this capacity, unless it has already been asked, or has just refused. Returns false
    /// if growth is impossible for now.
    pub(super) fn ask_to_grow(&mut self, lease: &mut Lease, capacity: u64) -> bool {
        let growth = &mut self.growth;
        if !lease.has_daemon() {
            growth.asked_ns = None;
            return false;
        }
        if growth.asked_ns.is_some() {
            return true;
        }
        let now = monotonic_ns();
        if capacity > self.max_capacity || now < growth.not_before_ns && capacity >= growth.capacity {
            return false;
        }
        growth.asked_ns = Some(now);
        growth.capacity = capacity;
        lease.tell(ToDaemon::Grow { capacity });
        true
    }

    /// The daemon wants a smaller capacity.
    pub(super) fn begin_shrink(&mut self, tail: &mut Tail, shrink: Shrink) {
        let capacity = shrink.capacity.min(self.max_capacity);
        self.shrink = Some(Shrink { capacity, ..shrink });
        // Neither a request nor a refusal for the old capacity says anything any more. The daemon has given up the growth that it
        // was asked for, and does not answer that request.
        self.growth = Growth::default();
        self.use_capacity(tail, capacity);
        tail.counters().pending.store(capacity, Ordering::Relaxed);
    }

    /// Whether a smaller capacity waits for the readers.
    #[inline]
    pub(super) fn is_shrinking(&self) -> bool {
        self.shrink.is_some()
    }

    /// Whether a ring that is full may be so because somebody wanted it smaller.
    pub(super) fn is_shrinking_on_request(&self) -> bool {
        self.shrink.is_some_and(|shrink| !shrink.yields)
    }

    /// Whether the memory above the smaller capacity is still needed.
    #[inline]
    pub(super) fn is_above(&self) -> bool {
        self.shrink.is_some_and(|shrink| self.plan.highest() > shrink.capacity)
    }

    /// Moves the tail out of the memory above the smaller capacity, if it is there and there is space below. Returns
    /// whether the tail has moved.
    pub(super) fn come_down(&mut self, tail: &mut Tail) -> bool {
        let Some(Shrink { capacity, .. }) = self.shrink else { return false };
        if self.plan.tail_off() + HEADER > capacity
            && let Placement::Jump { target } = self.plan.place(self.align)
        {
            self.jump(tail, target);
            return true;
        }
        false
    }

    /// Ends the shrink, which is in effect: nothing is above the smaller capacity.
    pub(super) fn end_shrink(&mut self) -> Option<Shrink> {
        debug_assert!(!self.is_above());
        self.shrink.take()
    }

    /// Tells the daemon from time to time that messages are dropped or overwritten.
    pub(super) fn tell_overflow(&mut self, tail: &Tail, lease: &mut Lease) {
        let now = monotonic_ns();
        if now - self.overflow_told_ns < OVERFLOW_INTERVAL_NS && self.overflow_told_ns != 0 {
            return;
        }
        self.overflow_told_ns = now;
        let counters = tail.counters();
        let (dropped, overwritten) =
            (counters.dropped.load(Ordering::Relaxed), counters.overwritten.load(Ordering::Relaxed));
        lease.tell(ToDaemon::Overflow { dropped, overwritten });
    }
}
