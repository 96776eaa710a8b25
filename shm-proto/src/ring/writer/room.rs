//! Making room: jumps, giving old records up, asking for growth, and what the channel does when none of that helps.

use std::sync::atomic::Ordering;

use super::peers::Need;
use super::wait::{Patience, Waiting};
use super::{OVERFLOW_INTERVAL_NS, Writer, recover};
use crate::error::{Blocked, Error, Result};
use crate::os::clock::monotonic_ns;
use crate::ring::commit::commit;
use crate::ring::floor;
use crate::ring::geometry::OnFull;
use crate::ring::layout::MARK_EVERY;
use crate::ring::link::ToDaemon;
use crate::ring::plan::Placement;
use crate::ring::published::Place;
use crate::ring::record::{HEADER, Header, align_header};

/// A refused growth is asked for again after this time.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// How long a channel that does not block waits for the daemon's answer about growth.
const ANSWER_NS: u64 = 1_000_000_000;
/// While growth waits for a shrink, the readers are looked at that often.
const SHRINK_LOOK_NS: u64 = 2_000_000;

/// What is known about growing.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Asked at this time, not answered yet.
    asked_ns: Option<u64>,
    /// What was asked for last, in bytes.
    capacity: u64,
    /// Refused: not before this time again, unless it is for less.
    not_before_ns: u64,
    /// Why it was refused last.
    refusal: Option<String>,
}

impl Growth {
    pub(super) fn granted(&mut self) {
        *self = Growth::default();
    }

    pub(super) fn refused(&mut self, reason: String) {
        self.asked_ns = None;
        self.not_before_ns = monotonic_ns().saturating_add(ASK_AGAIN_NS);
        self.refusal = Some(reason);
    }

    /// The capacity is another: a refusal that was about the old one says nothing any more.
    pub(super) fn forget_refusal(&mut self) {
        self.not_before_ns = 0;
        self.refusal = None;
    }
}

/// Whether to go on after the ring was found full.
enum Pressed {
    Retry,
    Drop,
}

/// The result of an attempt to move the floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Floor {
    /// It has moved.
    Moved,
    /// Some reader still needs the oldest message.
    Stays,
    /// The link has to be read first: a reader may be attaching.
    News,
}

impl Writer {
    /// The part of [`admit`](Self::admit) that is off the fast path.
    #[cold]
    #[inline(never)]
    pub(super) fn admit_slowly(&mut self, len: u64, patience: Patience) -> Result<bool> {
        if len > self.geometry.max_message {
            let (channel, limit) = (self.geometry.channel.to_string(), self.geometry.max_message);
            return Err(Error::TooLarge { channel, len, limit });
        }
        let stride = self.strides.of(len);
        self.flush()?;
        let mut waiting = Waiting::default();
        loop {
            self.attend()?;
            // Whoever went while this message waited for space counts, too.
            if !self.ready {
                self.await_readers(patience)?;
            }
            self.settle();
            let full = match self.plan.place(stride) {
                Placement::Here { limit } => {
                    // Come back in time for the next mark.
                    let soon = self.tail.off + self.marks.interval().min(MARK_EVERY).max(stride + HEADER);
                    self.limit = limit.min(soon);
                    debug_assert!(self.tail.off + stride + HEADER <= self.limit);
                    debug_assert!(self.limit <= self.geometry.max_capacity && self.tail.off == self.plan.tail_off());
                    return Ok(true);
                }
                Placement::Jump { target } => {
                    self.jump(target);
                    continue;
                }
                Placement::TooLarge => false,
                Placement::Full => true,
            };
            if full && self.give_up_part(self.peers.least().min(self.tail.pos())) != Floor::Stays {
                continue;
            }
            match self.pressed(stride, full, &mut waiting, patience)? {
                Pressed::Retry => {}
                Pressed::Drop => return Ok(false),
            }
        }
    }

    /// Brings the plan up to the tail, notes a boundary when one is due, and moves the mark.
    pub(super) fn settle(&mut self) {
        let written = self.tail.pos() - self.plan.tail_pos();
        if written > 0 {
            self.plan.push(written);
        }
        self.marks.note(self.tail_place());
        self.show_tail();
        if self.shrinking.is_some() {
            self.go_on_shrinking();
        }
    }

    /// Sends everybody to another offset.
    pub(super) fn jump(&mut self, target: u64) {
        commit(&self.segment, self.tail.off, Header::jump(target, self.tail.seq), target);
        self.plan.jump(target);
        self.tail.jump(target);
        self.limit = 0;
        // A reader that sleeps in front of a jump has to follow it before the space behind it can be reused.
        self.announce();
    }

    /// Moves the floor towards `allowed`, up to which every reader has read: one mark, or the whole rest. Returns false if the
    /// floor is there already, or if the link has to be read first.
    pub(super) fn give_up(&mut self, allowed: u64) -> Result<bool> {
        Ok(self.give_up_part(allowed) == Floor::Moved || self.give_up_rest(allowed)? == Floor::Moved)
    }

    /// Moves the floor to the next mark, or to the tail, if either is allowed.
    fn give_up_part(&mut self, allowed: u64) -> Floor {
        let place = match self.marks.after(self.floor.pos) {
            Some(mark) if mark.pos <= allowed => mark,
            _ if allowed == self.tail.pos() && allowed > self.floor.pos => self.tail_place(),
            _ => return Floor::Stays,
        };
        self.set_floor(place)
    }

    /// Moves the floor to the last record boundary that is allowed, which is before the next mark: walks there.
    fn give_up_rest(&mut self, allowed: u64) -> Result<Floor> {
        if allowed <= self.floor.pos {
            return Ok(Floor::Stays);
        }
        let place = self.boundary(allowed)?;
        Ok(if place.pos > self.floor.pos { self.set_floor(place) } else { Floor::Stays })
    }

    /// The last record boundary at or before `pos`. Evicts the readers whose cursor is between two.
    fn boundary(&mut self, pos: u64) -> Result<Place> {
        let mut place = self.floor;
        while place.pos < pos {
            // Within what the daemon lets this writer use, or did before a shrink.
            let next = recover::step(&self.segment, place, &self.geometry, self.geometry.max_capacity)
                .map_err(|reason| self.broken(reason))?;
            match next {
                Some(next) if next.pos <= pos => place = next,
                _ => break,
            }
        }
        if place.pos < pos {
            let liars: Vec<u32> = self.peers.iter().filter(|peer| peer.cursor == pos).map(|peer| peer.id).collect();
            for id in liars {
                self.evict(id, format!("its cursor {pos} is inside a message"));
            }
        }
        Ok(place)
    }

    fn set_floor(&mut self, to: Place) -> Floor {
        let header = self.segment.header();
        let generation = (&self.lease.generation.value, self.generation);
        if !floor::advance(&header.next_floor, &header.floor, (self.floor, to), generation, self.barrier) {
            return Floor::News;
        }
        self.floor = to;
        self.plan.release(to.pos);
        Floor::Moved
    }

    /// Nothing fits, and the readers as last seen need everything that is there.
    fn pressed(&mut self, stride: u64, full: bool, waiting: &mut Waiting, patience: Patience) -> Result<Pressed> {
        let before = self.peers.least();
        self.refresh();
        if full && self.peers.least() > before {
            return Ok(Pressed::Retry);
        }
        // Only now: readers that have gone on since the last look spare the walk.
        if full && self.give_up_rest(self.peers.least().min(self.tail.pos()))? != Floor::Stays {
            return Ok(Pressed::Retry);
        }
        if full && let Some(since) = self.peers.withheld_since_ns() {
            let now = monotonic_ns();
            // Readers that are not known yet may need what is there. A channel that never holds its writer up waits no longer for
            // the daemon than it does when it wants to grow.
            if self.geometry.on_full == OnFull::Block || now < since.saturating_add(ANSWER_NS) {
                self.check_patience(patience, now)?;
                self.await_lines(patience.deadline_ns())?;
                return Ok(Pressed::Retry);
            }
        }
        let needed = align_header(0, self.strides.align()) + stride + HEADER;
        // A ring that is being made smaller on request is full for that reason; only a message that cannot wait undoes it.
        let growing = (!full || self.shrinking.is_none()) && self.ask_to_grow(needed.max(self.plan.capacity() + 1));
        if growing && patience != Patience::None && (!full || self.geometry.on_full != OnFull::Block) {
            // Only the daemon can help. A channel that never holds its writer up does not wait for it for long.
            self.await_growth(patience)?;
            return Ok(Pressed::Retry);
        }
        if full && self.geometry.on_full == OnFull::Drop && self.count_refusal(monotonic_ns()) {
            return Ok(Pressed::Retry);
        }
        match self.geometry.on_full {
            OnFull::Block if full => {
                self.wait_for_space(waiting, patience)?;
                Ok(Pressed::Retry)
            }
            OnFull::Overwrite if full => {
                self.overwrite_oldest()?;
                Ok(Pressed::Retry)
            }
            OnFull::Block if growing => {
                Err(self.would_block(Blocked::Growing { needed, capacity: self.plan.capacity() }))
            }
            OnFull::Block => Err(Error::NoSpace {
                channel: self.geometry.channel.to_string(),
                needed,
                capacity: self.plan.capacity(),
                reason: self.growth.refusal.clone().unwrap_or_else(|| "it may not grow".to_owned()),
            }),
            OnFull::Drop | OnFull::Overwrite => {
                self.segment.header().counters.dropped.fetch_add(1, Ordering::Relaxed);
                self.tell_overflow();
                Ok(Pressed::Drop)
            }
        }
    }

    /// Waits a while for the daemon's answer.
    fn await_growth(&mut self, patience: Patience) -> Result<()> {
        let now = monotonic_ns();
        self.beat();
        self.check_patience(patience, now)?;
        let asked = self.growth.asked_ns.unwrap_or(now);
        let until = if self.geometry.on_full == OnFull::Block { now + ANSWER_NS } else { asked + ANSWER_NS };
        if self.link.is_none() {
            self.growth.refused("the daemon is gone".to_owned());
        } else if now >= until {
            self.growth.refused("the daemon does not answer".to_owned());
        } else {
            // The daemon may hold the answer back until a shrink is in effect, and that goes on only as the readers move.
            let look = if self.shrinking.is_some() { now + SHRINK_LOOK_NS } else { u64::MAX };
            let until = until.min(patience.deadline_ns()).min(look);
            self.doze(until);
            if self.shrinking.is_some() && self.geometry.on_full != OnFull::Overwrite {
                let need = Need::Space { tail: self.tail.pos() };
                self.count_wait(need, now, until);
                self.evict_overdue(need);
            }
            self.attend_now()?;
        }
        Ok(())
    }

    /// Asks the daemon for at least this capacity unless it has been asked, or has refused a moment ago. False when growing
    /// is out of the question for now.
    fn ask_to_grow(&mut self, capacity: u64) -> bool {
        if self.growth.asked_ns.is_some() {
            return true;
        }
        let now = monotonic_ns();
        let refused = now < self.growth.not_before_ns && capacity >= self.growth.capacity;
        if capacity > self.geometry.max_capacity || self.link.is_none() || refused {
            return false;
        }
        self.growth.asked_ns = Some(now);
        self.growth.capacity = capacity;
        self.tell(ToDaemon::Grow { capacity });
        true
    }

    /// Gives up the oldest records although some reader has not read them.
    fn overwrite_oldest(&mut self) -> Result<()> {
        let target = match self.marks.after(self.floor.pos) {
            Some(mark) => mark,
            None => self.tail_place(),
        };
        let read = self.peers.least().min(self.tail.pos());
        let first_unread = if read > self.floor.pos { self.boundary(read)?.seq } else { self.floor.seq };
        let lost = target.seq.saturating_sub(first_unread);
        if self.set_floor(target) != Floor::Moved {
            return Ok(());
        }
        self.segment.header().counters.overwritten.fetch_add(lost, Ordering::Relaxed);
        if lost > 0 {
            self.tell_overflow();
        }
        Ok(())
    }

    fn tell_overflow(&mut self) {
        let now = monotonic_ns();
        if now - self.overflow_told_ns < OVERFLOW_INTERVAL_NS && self.overflow_told_ns != 0 {
            return;
        }
        self.overflow_told_ns = now;
        let counters = &self.segment.header().counters;
        let (dropped, overwritten) =
            (counters.dropped.load(Ordering::Relaxed), counters.overwritten.load(Ordering::Relaxed));
        self.tell(ToDaemon::Overflow { dropped, overwritten });
    }
}
