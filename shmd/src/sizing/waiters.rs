//! Who has asked for a size and waits for the answer.

use std::time::{Duration, Instant};

use shm_proto::control::ErrorKind;

use super::Action;
use crate::event_loop::ClientId;

/// How long a resize request waits for a shrink before it is answered with `pending`.
pub(crate) const SHRINK_REPLY: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Waiter {
    client: ClientId,
    old: u64,
    asked: u64,
    new: u64,
    since: Instant,
}

impl Waiter {
    fn done(&self, pending: bool) -> Action {
        Action::Done { client: self.client, old: self.old, asked: self.asked, new: self.new, pending }
    }
}

/// The requests that are not answered yet, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// At `old` bytes, a client has `asked` for so many, which come to `new`.
    pub(super) fn add(&mut self, client: ClientId, old: u64, asked: u64, new: u64, now: Instant) {
        self.0.push(Waiter { client, old, asked, new, since: now });
    }

    /// A client is gone.
    pub(super) fn forget(&mut self, client: ClientId) {
        self.0.retain(|waiter| waiter.client != client);
    }

    /// When the first of them has waited for a shrink for so long.
    pub(super) fn deadline(&self, patience: Duration) -> Option<Instant> {
        self.0.iter().map(|waiter| waiter.since + patience).min()
    }

    /// The time that they wait begins anew.
    pub(super) fn restart(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|waiter| waiter.since = now);
    }

    /// Answers those whose size is reached: a growth when there is so much, a shrink when none is under way.
    pub(super) fn settle(&mut self, capacity: u64, shrinking: bool, out: &mut Vec<Action>) {
        self.0.retain(|waiter| {
            let reached = if waiter.new > waiter.old { capacity >= waiter.new } else { !shrinking };
            if reached {
                out.push(waiter.done(false));
            }
            !reached
        });
    }

    /// Answers those that have waited for a shrink for so long.
    pub(super) fn expire(&mut self, now: Instant, patience: Duration, out: &mut Vec<Action>) {
        self.0.retain(|waiter| {
            let late = waiter.new < waiter.old && now.saturating_duration_since(waiter.since) >= patience;
            if late {
                out.push(waiter.done(true));
            }
            !late
        });
    }

    /// Refuses all of them; `message` makes the reason from the size that was wanted.
    pub(super) fn refuse(&mut self, kind: ErrorKind, out: &mut Vec<Action>, message: impl Fn(u64) -> String) {
        let refused = self.0.drain(..);
        out.extend(refused.map(|waiter| Action::Refuse { client: waiter.client, kind, message: message(waiter.new) }));
    }
}
