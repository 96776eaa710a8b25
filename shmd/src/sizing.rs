//! One channel's size as a state machine: (state, event) -> (state, actions). Pure: no descriptor, no clock, no memory.
//!
//! One change at a time. A growth reserves memory step by step and tells the writer after each step; a shrink waits for
//! the writer's report that nothing lies above the new size. The newest order wins over an older one, with one exception:
//! a writer's wish for more waits for an operator's shrink, for at most [`SHRINK_HOLD`].

mod action;
mod waiters;
mod wishes;

use std::time::{Duration, Instant};

use shm_proto::internal::os::memory::Free;
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::{Bytes, ErrorKind};

use crate::event_loop::ClientId;
use crate::policy::Bounds;

pub(crate) use action::{Action, By};
use waiters::{Help, Waiters};

/// How long a writer's wish for more space waits for an operator's shrink to take effect.
pub(crate) const SHRINK_HOLD: Duration = Duration::from_secs(1);
/// After a failed growth, a writer's wishes are refused for this long without trying again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Growing {
    old: u64,
    goal: u64,
    by: By,
}

#[derive(Debug)]
struct Shrinking {
    id: u32,
    target: u64,
    since: Instant,
    by: By,
}

impl Shrinking {
    fn line(&self) -> ToWriter {
        ToWriter::Shrink { capacity: self.target, id: self.id, yields: self.by != By::Operator }
    }
}

/// A channel's size and its present change.
#[derive(Debug)]
pub(crate) struct Sizing {
    bounds: Bounds,
    capacity: u64,
    growing: Option<Growing>,
    shrinking: Option<Shrinking>,
    waiters: Waiters,
    /// A writer's wish that waits for the present change; 0 for none.
    wanted: u64,
    refused: Option<(Instant, String)>,
    writer: bool,
    /// The number of the last shrink: a report about an older shrink has another number.
    last_shrink: u32,
}

impl Sizing {
    /// A channel of `capacity` bytes, all of it with memory behind it, without a writer.
    pub(crate) fn new(bounds: Bounds, capacity: u64) -> Self {
        Self {
            bounds,
            capacity,
            growing: None,
            shrinking: None,
            waiters: Waiters::default(),
            wanted: 0,
            refused: None,
            writer: false,
            last_shrink: 0,
        }
    }

    /// The limits.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Other limits. What is outside them stays until it changes.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// What the writer may use now; all of it has memory behind it.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The size that is not in effect yet. A growth whose memory is all there is in effect, even if its reservation has not
    /// ended.
    pub(crate) fn pending(&self) -> Option<u64> {
        self.wish().map(|(size, _)| size)
    }

    /// The same, and who wants it.
    pub(crate) fn wish(&self) -> Option<(u64, By)> {
        let growing = self.growing.as_ref().filter(|g| g.goal > self.capacity).map(|g| (g.goal, g.by));
        growing.or(self.shrinking.as_ref().map(|s| (s.target, s.by)))
    }

    /// The size a shrink waits for.
    pub(crate) fn shrinking(&self) -> Option<u64> {
        self.shrinking.as_ref().map(|s| s.target)
    }

    /// Whether a growth is under way.
    pub(crate) fn growing(&self) -> bool {
        self.growing.is_some()
    }

    /// When [`Self::tick`] has something to do at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let shrink = self.shrinking.as_ref()?;
        let reply = self.waiters.deadline();
        let hold = (self.wanted > 0).then_some(shrink.since + SHRINK_HOLD);
        reply.into_iter().chain(hold).min()
    }

    /// This many bytes have memory behind them.
    pub(crate) fn reserved(&mut self, bytes: u64) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(&Growing { old, goal, by }) = self.growing.as_ref() else { return out };
        if bytes > self.capacity {
            self.capacity = bytes.min(goal);
            let done = self.capacity == goal;
            self.tell(ToWriter::Grown { capacity: self.capacity, done }, &mut out);
            if done {
                // Not when the reservation ends: whoever sees the size or is answered now finds it counted.
                out.push(Action::Grew { old, new: goal, by });
            }
            self.settle(&mut out);
        }
        out
    }

    /// The reservation came to its end.
    pub(crate) fn finished(&mut self, now: Instant, free: &Free) -> Vec<Action> {
        let Some(goal) = self.growing.as_ref().map(|g| g.goal) else { return Vec::new() };
        let mut out = self.reserved(goal);
        self.growing = None;
        self.refused = None;
        self.catch_up(now, free, &mut out);
        out
    }

    /// The reservation failed: `reason` has the system's words, `free` what was left.
    pub(crate) fn failed(&mut self, now: Instant, reason: &str, free: &Free) -> Vec<Action> {
        let mut out = Vec::new();
        if let Some(growing) = self.growing.take() {
            out.push(Action::Cut { to: self.capacity, after: None });
            self.refuse(growing.goal, growing.by, reason, free, now, &mut out);
        }
        out
    }

    /// The writer says that shrink `id` is done: nothing from position `after` on lies above its target.
    pub(crate) fn shrunk(&mut self, id: u32, after: u64) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(shrink) = self.shrinking.take_if(|s| s.id == id) else { return out };
        let capacity = shrink.target;
        let old = std::mem::replace(&mut self.capacity, capacity);
        out.push(Action::Cut { to: capacity, after: Some(after) });
        out.push(Action::Shrank { old, new: capacity, by: shrink.by });
        // There is memory again, and a client that would be refused at the smaller size was not refused at the larger one.
        self.refused = None;
        self.settle(&mut out);
        if std::mem::take(&mut self.wanted) > 0 {
            // The wish was made at the old size. A writer that is told the new one asks again if it needs to.
            self.tell(ToWriter::Grown { capacity, done: false }, &mut out);
        }
        out
    }

    /// Time passes: requests that waited long enough are answered, a wish that waited long enough is looked at.
    pub(crate) fn tick(&mut self, now: Instant, free: &Free) -> Vec<Action> {
        let mut out = Vec::new();
        self.expire(now, &mut out);
        if self.growing.is_none() && self.wanted > 0 {
            self.catch_up(now, free, &mut out);
        }
        out
    }

    /// A writer is on its way to carry a shrink out: a request is worth waiting for.
    pub(crate) fn expect_writer(&mut self) {
        self.waiters.help(Help::Coming);
    }

    /// The writer that was expected does not come.
    pub(crate) fn expect_nobody(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        if self.waiters.expect_help() && !self.writer {
            self.waiters.help(Help::None);
            self.give_up_waiting(&mut out);
        }
        out
    }

    /// A writer came, or is gone. A new one has to be told what is pending.
    pub(crate) fn writer(&mut self, now: Instant, present: bool) -> Vec<Action> {
        self.writer = present;
        self.wanted = 0;
        self.waiters.help(if present && self.waiters.expect_help() { Help::There(now) } else { Help::None });
        let mut out = Vec::new();
        if let Some(line) = self.shrinking.as_ref().map(Shrinking::line) {
            self.tell(line, &mut out);
        }
        out
    }

    /// Nothing is changed any more; waiting clients are told `why`.
    pub(crate) fn close(&mut self, why: &str) -> Vec<Action> {
        let mut out = Vec::new();
        self.take_back(why, &mut out);
        out
    }

    /// A client that waited for an answer is gone.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.waiters.forget(client);
    }

    fn tell(&self, line: ToWriter, out: &mut Vec<Action>) {
        if self.writer {
            out.push(Action::Tell(line));
        }
    }

    fn grow(&mut self, goal: u64, by: By, free: &Free, now: Instant, out: &mut Vec<Action>) {
        if goal - self.capacity > free.bytes {
            return self.refuse(goal, by, "it does not fit", free, now, out);
        }
        self.growing = Some(Growing { old: self.capacity, goal, by });
        out.push(Action::Reserve { from: self.capacity, to: goal });
    }

    /// Ends the present change; clients that wait for it are told `why`.
    fn take_back(&mut self, why: &str, out: &mut Vec<Action>) {
        let size = self.pending();
        if self.growing.is_some() || self.shrinking.is_some() {
            // A writer that waits for an answer to its wish has it, and asks again if it needs to.
            self.wanted = 0;
            self.tell(ToWriter::Grown { capacity: self.capacity, done: false }, out);
        }
        if let Some(growing) = self.growing.take() {
            out.push(Action::CancelReservation);
            out.push(Action::Cut { to: self.capacity, after: None });
            if self.capacity > growing.old && self.capacity < growing.goal {
                out.push(Action::Grew { old: growing.old, new: self.capacity, by: growing.by });
            }
        }
        self.shrinking = None;
        self.waiters.refuse(ErrorKind::Busy, out, |wanted| {
            format!("the change to {} was given up: {why}", Bytes(size.unwrap_or(wanted)))
        });
    }

    /// Begins a shrink to `target`, unless that is the size already.
    fn shrink(&mut self, target: u64, by: By, now: Instant, out: &mut Vec<Action>) {
        if target < self.capacity {
            self.last_shrink = self.last_shrink.wrapping_add(1);
            let shrink = Shrinking { id: self.last_shrink, target, since: now, by };
            self.tell(shrink.line(), out);
            self.shrinking = Some(shrink);
        }
    }

    fn refuse(&mut self, goal: u64, by: By, reason: &str, free: &Free, now: Instant, out: &mut Vec<Action>) {
        let reason =
            format!("no memory: asked {}, present {}, free {free}: {reason}", Bytes(goal), Bytes(self.capacity),);
        self.waiters.refuse(ErrorKind::NoSpace, out, |_| reason.clone());
        out.push(Action::NotGrown { asked: goal, reason: reason.clone() });
        if by == By::Writer {
            self.wanted = 0;
            self.refused = Some((now + RETRY_AFTER, reason.clone()));
            self.tell(ToWriter::NotGrown { reason }, out);
        } else {
            // The writer may be content with less than the operator.
            self.catch_up(now, free, out);
        }
    }

    /// Answers the requests whose size is reached.
    fn settle(&mut self, out: &mut Vec<Action>) {
        self.waiters.settle(self.capacity, self.shrinking.is_some(), out);
    }

    /// Answers the requests that waited long enough for a shrink.
    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.shrinking.is_some() {
            self.waiters.expire(now, out);
        }
    }

    /// Answers the requests that wait for a shrink which nobody carries out.
    fn give_up_waiting(&mut self, out: &mut Vec<Action>) {
        if self.shrinking.is_some() {
            self.waiters.expire_all(out);
        }
    }

    /// Looks again at a wish that had to wait.
    fn catch_up(&mut self, now: Instant, free: &Free, out: &mut Vec<Action>) {
        let asked = std::mem::take(&mut self.wanted);
        if self.growing.is_some() {
            self.wanted = asked;
        } else if asked > self.capacity || (asked > 0 && self.shrinking.is_some()) {
            out.extend(self.writer_asks(now, asked, free));
        }
    }
}

#[cfg(test)]
mod adoption_tests;
#[cfg(test)]
mod tests;
