//! Who wants another size: an operator, the writer, the policy, or a new segment.

use std::time::Instant;

use shm_proto::internal::os::memory::Free;
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::{Bytes, ErrorKind};

use super::{Action, By, SHRINK_HOLD, Sizing};
use crate::event_loop::ClientId;

impl Sizing {
    /// Whether a writer has to carry out a request for this size.
    pub(crate) fn needs_writer(&self, asked: u64) -> bool {
        self.bounds.fit(asked).is_some_and(|new| new < self.capacity)
    }

    /// An operator asks for a size. `free` is the available memory.
    pub(crate) fn ask(&mut self, now: Instant, client: ClientId, asked: u64, free: &Free) -> Vec<Action> {
        let mut out = Vec::new();
        let Some(new) = self.bounds.fit(asked) else {
            let message = format!(
                "asked {}, allowed {} to {}: the channel's min and max",
                Bytes(asked),
                Bytes(self.bounds.min),
                Bytes(self.bounds.max)
            );
            out.push(Action::Refuse { client, kind: ErrorKind::OutOfRange, message });
            return out;
        };
        let old = self.capacity;
        let joins = self.growing.as_ref().is_some_and(|g| (old..=g.goal).contains(&new));
        if joins {
            self.waiters.add(client, old, asked, new, now);
            self.settle(&mut out);
            return out;
        }
        self.take_back(&format!("a later request asked for {}", Bytes(new)), &mut out);
        if new > old {
            self.waiters.add(client, old, asked, new, now);
            self.grow(new, By::Operator, free, now, &mut out);
        } else {
            self.shrink(new, By::Operator, now, &mut out);
            self.waiters.add(client, old, asked, new, now);
            if !self.writer && !self.waiters.expect_help() {
                // Nobody is there to carry it out; the next writer will.
                self.give_up_waiting(&mut out);
            }
            self.settle(&mut out);
        }
        out
    }

    /// The writer asks for at least `asked` bytes.
    pub(crate) fn writer_asks(&mut self, now: Instant, asked: u64, free: &Free) -> Vec<Action> {
        let mut out = Vec::new();
        if self.growing.is_some() {
            self.wanted = self.wanted.max(asked);
            return out;
        }
        if let Some(shrink) = &self.shrinking {
            if shrink.by == By::Operator && now.saturating_duration_since(shrink.since) < SHRINK_HOLD {
                self.wanted = self.wanted.max(asked);
                return out;
            }
            self.take_back("the writer needs the space", &mut out);
            if asked <= self.capacity {
                return out;
            }
        }
        if asked <= self.capacity {
            // The wish and the news of another growth crossed on the way.
            self.tell(ToWriter::Grown { capacity: self.capacity, done: false }, &mut out);
            return out;
        }
        if let Some((until, reason)) = &self.refused
            && now < *until
        {
            out.push(Action::Tell(ToWriter::NotGrown { reason: reason.clone() }));
            return out;
        }
        match self.bounds.grown(self.capacity, asked, free.bytes) {
            Some(goal) => self.grow(goal, By::Writer, free, now, &mut out),
            None => {
                let reason = format!(
                    "asked {}, present {}, at most {}",
                    Bytes(asked),
                    Bytes(self.capacity),
                    Bytes(self.bounds.max)
                );
                out.push(Action::Tell(ToWriter::NotGrown { reason }));
            }
        }
        out
    }

    /// The policy gives memory back.
    pub(crate) fn low_use(&mut self, now: Instant, target: u64) -> Vec<Action> {
        let mut out = Vec::new();
        if self.growing.is_none() && self.shrinking.is_none() && target < self.capacity && self.wanted == 0 {
            self.shrink(target, By::LowUse, now, &mut out);
        }
        out
    }

    /// A daemon that died was about to make the channel larger, and nothing else has been asked for since.
    pub(crate) fn take_up_growth(&mut self, now: Instant, goal: u64, by: By, free: &Free) -> Vec<Action> {
        let mut out = Vec::new();
        if self.growing.is_none() && self.shrinking.is_none() && goal > self.capacity {
            self.grow(goal, by, free, now, &mut out);
        }
        out
    }

    /// A daemon that died was about to make the channel smaller. Nobody writes; the next writer is told.
    pub(crate) fn take_up_shrink(&mut self, now: Instant, target: u64, by: By) {
        self.shrink(target, by, now, &mut Vec::new());
    }

    /// A writer that was lent the role by a daemon that died goes on with `capacity` bytes: it may have finished a shrink since.
    pub(crate) fn resumed(&mut self, capacity: u64) -> Vec<Action> {
        let mut out = Vec::new();
        let old = std::mem::replace(&mut self.capacity, capacity);
        if self.growing.is_none() {
            out.push(Action::Cut { to: capacity, after: None });
        }
        if let Some(shrink) = self.shrinking.take_if(|shrink| shrink.target >= capacity) {
            out.push(Action::Shrank { old, new: capacity, by: shrink.by });
        }
        self.settle(&mut out);
        out
    }

    /// The channel has a new segment with memory behind `capacity` bytes. It grows from there to the size that it had, or was to
    /// have: `goal`. Nobody writes.
    pub(crate) fn replaced(&mut self, now: Instant, capacity: u64, goal: u64, free: &Free) -> Vec<Action> {
        let mut out = Vec::new();
        let growing = self.growing.take();
        if growing.is_some() {
            out.push(Action::CancelReservation);
        }
        if let Some(shrink) = self.shrinking.take() {
            // Nothing lies above the target, nor anywhere else.
            out.push(Action::Shrank { old: self.capacity, new: goal, by: shrink.by });
        }
        self.capacity = capacity;
        self.settle(&mut out);
        if goal > capacity {
            self.grow(goal, growing.map_or(By::Move, |growing| growing.by), free, now, &mut out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Bounds, PAGE};

    #[test]
    fn a_size_that_the_channel_has_after_rounding_needs_nobody_and_is_answered_at_once() {
        let capacity = 16 * PAGE;
        let mut sizing = Sizing::new(Bounds { min: 2 * PAGE, max: 64 * PAGE }, capacity);
        for asked in [capacity, capacity - 1, capacity - PAGE + 1] {
            assert!(!sizing.needs_writer(asked), "{asked}");
            let done = Action::Done { client: 1, old: capacity, asked, new: capacity, pending: false };
            assert_eq!(sizing.ask(Instant::now(), 1, asked, &Free::UNLIMITED), [done]);
        }
        assert!(sizing.needs_writer(capacity - PAGE));
        assert!(!sizing.needs_writer(capacity + 1), "memory, and no writer");
        assert!(!sizing.needs_writer(0) && !sizing.needs_writer(u64::MAX), "not allowed");
    }

    /// With a writer.
    fn sizing() -> Sizing {
        let mut sizing = Sizing::new(Bounds { min: 2 * PAGE, max: 64 * PAGE }, 16 * PAGE);
        sizing.writer(Instant::now(), true);
        sizing
    }

    /// Else the writer waits for ever: the operator's growth fails, and the wish for less was given up for it.
    #[test]
    fn a_writer_whose_growth_is_replaced_by_one_that_fails_has_its_answer() {
        let mut sizing = sizing();
        let now = Instant::now();
        let capacity = sizing.capacity();
        assert!(matches!(sizing.writer_asks(now, 2 * capacity, &Free::UNLIMITED)[..], [Action::Reserve { .. }]));
        let out = sizing.ask(now, 1, 4 * capacity, &Free::in_shm(0));
        assert!(out.contains(&Action::Tell(ToWriter::Grown { capacity, done: false })), "{out:?}");
        assert!(out.iter().any(|action| matches!(action, Action::Refuse { client: 1, .. })), "{out:?}");
    }

    #[test]
    fn a_wish_that_was_answered_does_not_keep_the_policy_from_shrinking() {
        let mut sizing = sizing();
        let (now, capacity) = (Instant::now(), sizing.capacity());
        sizing.ask(now, 1, 2 * PAGE, &Free::UNLIMITED);
        sizing.writer_asks(now, 2 * capacity, &Free::UNLIMITED);
        sizing.ask(now, 2, capacity, &Free::UNLIMITED);
        assert!(!sizing.low_use(now, 2 * PAGE).is_empty());
    }
}
