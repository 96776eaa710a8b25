//! Making space for a message that does not fit at once: jumps, giving up old records, requests for growth, and the
//! channel's policy if none of these helps.

use std::sync::atomic::Ordering;

use super::Writer;
use super::need::Need;
use super::space::{ANSWER_NS, Floor};
use super::wait::{Patience, SLICE_NS, Waiting};
use crate::error::Blocked;
use crate::os::clock::monotonic_ns;
use crate::ring::geometry::OnFull;
use crate::ring::link::ToDaemon;
use crate::ring::plan::Placement;
use crate::ring::published::Place;
use crate::ring::writer::error::{Result, WriterError};

/// How often to look at the readers while growth waits for a shrink.
const SHRINK_LOOK_NS: u64 = 2_000_000;

/// What to do after the ring was found full.
enum Pressed {
    Retry,
    Drop,
}

impl Writer {
    /// Ensures that a message of `len` bytes fits at the tail. Returns false if the channel's policy drops the message.
    #[inline]
    pub(super) fn admit(&mut self, len: u64, patience: Patience) -> Result<bool> {
        if self.lease.is_current() && self.tail.has_space(len) {
            return Ok(true);
        }
        self.admit_slowly(len, patience)
    }

    /// The part of [`admit`](Self::admit) that is off the fast path.
    #[cold]
    #[inline(never)]
    pub(super) fn admit_slowly(&mut self, len: u64, patience: Patience) -> Result<bool> {
        if len > self.geometry.max_message {
            let (channel, limit) = (self.geometry.channel.to_string(), self.geometry.max_message);
            return Err(WriterError::TooLarge { channel, len, limit });
        }
        self.flush()?;
        let mut waiting = Waiting::default();
        loop {
            self.daemon_lines()?;
            // Readers that left while this message waited for space also count.
            self.await_readers(patience)?;
            self.settle();
            let full = match self.space.place(&mut self.tail, len) {
                Placement::Here { .. } => return Ok(true),
                Placement::Jump { target } => {
                    self.jump(target);
                    continue;
                }
                Placement::TooLarge => false,
                Placement::Full => true,
            };
            let read = self.read();
            if full && self.space.give_up_part(&self.tail, &self.lease, read) != Floor::Stays {
                continue;
            }
            match self.pressed(len, full, &mut waiting, patience)? {
                Pressed::Retry => {}
                Pressed::Drop => return Ok(false),
            }
        }
    }

    /// The position up to which every reader has read, as last seen.
    pub(super) fn read(&self) -> u64 {
        self.peers.least().min(self.tail.pos())
    }

    /// Brings the plan up to the tail, and moves the mark.
    pub(super) fn settle(&mut self) {
        self.space.settle(&self.tail);
        self.show_tail();
        if self.space.is_shrinking() {
            self.go_on_shrinking();
        }
    }

    /// Makes all readers continue at another offset.
    fn jump(&mut self, target: u64) {
        self.space.jump(&mut self.tail, target);
        // A reader that sleeps in front of a jump must follow it before the space behind that reader can be reused.
        self.announce();
    }

    /// Moves the floor to the last record boundary up to which every reader has read, by walking there.
    fn give_up_rest(&mut self) -> Result<Floor> {
        let read = self.read();
        if read <= self.space.floor().pos {
            return Ok(Floor::Stays);
        }
        let place = self.boundary(read)?;
        Ok(self.space.move_floor(&self.tail, &self.lease, place))
    }

    /// The last record boundary at or before `pos`. Evicts the readers whose cursor is between two boundaries.
    fn boundary(&mut self, pos: u64) -> Result<Place> {
        let found = self.space.boundary(&self.tail, &self.geometry, pos);
        let place = found.map_err(|reason| self.lease.broken(reason))?;
        if place.pos < pos {
            for id in self.peers.at(pos) {
                self.evict(id, format!("its cursor {pos} is inside a message"));
            }
        }
        Ok(place)
    }

    /// Handles a message that does not fit although the readers, as last seen, need everything in the ring.
    fn pressed(&mut self, len: u64, full: bool, waiting: &mut Waiting, patience: Patience) -> Result<Pressed> {
        let before = self.peers.least();
        self.refresh();
        if full && self.peers.least() > before {
            return Ok(Pressed::Retry);
        }
        // Not earlier: if readers have moved since the last look, the walk is unnecessary.
        if full && self.give_up_rest()? != Floor::Stays {
            return Ok(Pressed::Retry);
        }
        let on_full = self.geometry.on_full;
        if full && let Some(since) = self.peers.withheld_since_ns() {
            let now = monotonic_ns();
            // Readers that are not known yet may need the records in the ring. A channel that never holds up its writer
            // waits for the daemon no longer than it does for growth.
            if on_full == OnFull::Block || now < since.saturating_add(ANSWER_NS) {
                self.check_patience(patience, now)?;
                self.await_lines(patience.deadline_ns())?;
                return Ok(Pressed::Retry);
            }
        }
        let (needed, capacity) = (self.space.needed_for(self.tail.stride_of(len)), self.space.capacity());
        // A ring that is shrinking on request is full for that reason. Only a message that cannot wait undoes the
        // shrink.
        let growing = (!full || !self.space.is_shrinking_on_request())
            && self.space.ask_to_grow(&mut self.lease, needed.max(capacity + 1));
        if growing && patience != Patience::None && (!full || on_full != OnFull::Block) {
            // Only the daemon can help. A channel that never holds up its writer does not wait long for the daemon.
            self.await_growth(patience)?;
            return Ok(Pressed::Retry);
        }
        if full && on_full == OnFull::Drop && self.count_refusal(monotonic_ns()) {
            return Ok(Pressed::Retry);
        }
        match on_full {
            OnFull::Block if full => {
                self.wait_for_space(waiting, patience)?;
                Ok(Pressed::Retry)
            }
            OnFull::Overwrite if full => {
                self.overwrite_oldest()?;
                Ok(Pressed::Retry)
            }
            OnFull::Block if growing => Err(self.would_block(Blocked::Growing { needed, capacity })),
            OnFull::Block => Err(WriterError::NoSpace {
                channel: self.geometry.channel.to_string(),
                needed,
                capacity,
                reason: self.space.refusal().unwrap_or_else(|| "it may not grow".to_owned()),
            }),
            OnFull::Drop | OnFull::Overwrite => {
                self.tail.counters().dropped.fetch_add(1, Ordering::Relaxed);
                self.space.tell_overflow(&self.tail, &mut self.lease);
                Ok(Pressed::Drop)
            }
        }
    }

    /// Waits a while for the daemon's answer.
    fn await_growth(&mut self, patience: Patience) -> Result<()> {
        let now = monotonic_ns();
        self.beat();
        self.check_patience(patience, now)?;
        let on_full = self.geometry.on_full;
        let asked = self.space.asked_ns().unwrap_or(now);
        let until = if on_full == OnFull::Block { now + ANSWER_NS } else { asked + ANSWER_NS };
        let is_away = !self.lease.is_attended() && on_full != OnFull::Block;
        if !self.lease.has_daemon() || is_away {
            self.space.not_grown("the daemon is gone".to_owned());
        } else if now >= until {
            self.space.not_grown("the daemon does not answer".to_owned());
        } else {
            // The daemon may delay its answer until a shrink is in effect, and the shrink proceeds only as the readers
            // move.
            // A daemon that dies wakes nobody.
            let look = now + if self.space.is_shrinking() { SHRINK_LOOK_NS } else { SLICE_NS };
            let until = until.min(patience.deadline_ns()).min(look);
            self.lease.doze(until);
            if self.space.is_shrinking() && on_full != OnFull::Overwrite {
                let need = Need::Space { tail: self.tail.pos() };
                self.peers.waited(need, now, until, self.limit());
                self.evict_overdue(need);
            }
            self.daemon_lines_now()?;
        }
        Ok(())
    }

    /// Gives up the oldest records although a reader may not have read them.
    fn overwrite_oldest(&mut self) -> Result<()> {
        let (target, floor, read) = (self.space.next_boundary(&self.tail), self.space.floor(), self.read());
        let first_unread = if read > floor.pos { self.boundary(read)?.seq } else { floor.seq };
        let lost = target.seq.saturating_sub(first_unread);
        if self.space.move_floor(&self.tail, &self.lease, target) != Floor::Moved {
            return Ok(());
        }
        self.tail.counters().overwritten.fetch_add(lost, Ordering::Relaxed);
        if lost > 0 {
            self.space.tell_overflow(&self.tail, &mut self.lease);
        }
        Ok(())
    }

    /// Leaves the memory above a smaller capacity as far as the readers allow, and tells the daemon when that memory is
    /// free.
    pub(super) fn go_on_shrinking(&mut self) {
        if !self.space.is_shrinking() {
            return;
        }
        self.space.catch_up(&self.tail);
        while self.space.is_above() {
            let jumped = self.space.come_down(&mut self.tail);
            if jumped {
                self.announce();
            }
            let gave_up = self.space.is_above() && self.give_up();
            if !jumped && !gave_up {
                return;
            }
        }
        let Some(shrink) = self.space.end_shrink() else { return };
        // The last mark may lie above the new capacity, and must not lead a reader there that attaches from now on.
        self.show_tail();
        let counters = self.tail.counters();
        counters.pending.store(0, Ordering::Relaxed);
        counters.capacity.store(shrink.capacity, Ordering::Relaxed);
        counters.resizes.fetch_add(1, Ordering::Relaxed);
        let (capacity, id, after) = (shrink.capacity, shrink.id, self.space.floor().pos);
        self.lease.tell(ToDaemon::Shrunk { capacity, id, after });
    }

    /// Moves the floor as far as the readers allow: to one mark, or over the whole rest. Returns false if the floor is
    /// already there, or if the link must be read first.
    fn give_up(&mut self) -> bool {
        self.space.give_up_part(&self.tail, &self.lease, self.read()) == Floor::Moved
            || self.give_up_rest().is_ok_and(|floor| floor == Floor::Moved)
    }
}
