//! Clients that have asked for a size and wait for the answer.

use std::time::{Duration, Instant};

use shm_proto::ErrorKind;

use super::Action;
use crate::event_loop::ClientId;

/// How long a resize request waits for a shrink before it is answered with `pending`.
pub(super) const SHRINK_REPLY: Duration = Duration::from_millis(200);
/// How long it waits for a writer that is being started to carry the shrink out, and then for that writer, which has to get
/// its turn first.
pub(super) const HELP_COMES: Duration = Duration::from_secs(5);
pub(super) const HELPED_REPLY: Duration = Duration::from_secs(1);

/// A writer whose only work is a shrink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Help {
    /// There is none.
    #[default]
    None,
    /// It is being started.
    Coming,
    /// It has been there since then.
    There(Instant),
}

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

/// The requests that are not answered yet, in the order in which they came, and whether they have somebody to wait for.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Vec<Waiter>,
    help: Help,
}

impl Waiters {
    /// At a capacity of `old` bytes a client has `asked` for another one, which is `new` after rounding.
    pub(super) fn add(&mut self, client: ClientId, old: u64, asked: u64, new: u64, now: Instant) {
        self.waiting.push(Waiter { client, old, asked, new, since: now });
    }

    /// Whether help comes, is there or cannot come.
    pub(super) fn help(&mut self, help: Help) {
        self.help = help;
    }

    /// Whether help is on its way.
    pub(super) fn expect_help(&self) -> bool {
        self.help == Help::Coming
    }

    /// Until when such a request waits for a shrink.
    fn patience(&self, waiter: &Waiter) -> Instant {
        match self.help {
            Help::None => waiter.since + SHRINK_REPLY,
            Help::Coming => waiter.since + HELP_COMES,
            Help::There(since) => waiter.since.max(since) + HELPED_REPLY,
        }
    }

    /// A client is gone.
    pub(super) fn forget(&mut self, client: ClientId) {
        self.waiting.retain(|waiter| waiter.client != client);
    }

    /// When the first of them has waited long enough for a shrink.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiter| self.patience(waiter)).min()
    }

    /// Answers the clients whose size is reached: a growth when the channel is that large, a shrink when no shrink is in
    /// progress.
    pub(super) fn settle(&mut self, capacity: u64, shrinking: bool, out: &mut Vec<Action>) {
        self.waiting.retain(|waiter| {
            let reached = if waiter.new > waiter.old { capacity >= waiter.new } else { !shrinking };
            if reached {
                out.push(waiter.done(false));
            }
            !reached
        });
    }

    /// Answers the clients that have waited long enough for a shrink.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        let late: Vec<ClientId> =
            self.waiting.iter().filter(|waiter| now >= self.patience(waiter)).map(|waiter| waiter.client).collect();
        self.answer_shrinks(out, |waiter| late.contains(&waiter.client));
    }

    /// Answers all that wait for a shrink.
    pub(super) fn expire_all(&mut self, out: &mut Vec<Action>) {
        self.answer_shrinks(out, |_| true);
    }

    fn answer_shrinks(&mut self, out: &mut Vec<Action>, which: impl Fn(&Waiter) -> bool) {
        self.waiting.retain(|waiter| {
            let answered = waiter.new < waiter.old && which(waiter);
            if answered {
                out.push(waiter.done(true));
            }
            !answered
        });
    }

    /// Refuses all of them; `message` makes the reason from the size that was wanted.
    pub(super) fn refuse(&mut self, kind: ErrorKind, out: &mut Vec<Action>, message: impl Fn(u64) -> String) {
        let refused = self.waiting.drain(..);
        out.extend(refused.map(|waiter| Action::Refuse { client: waiter.client, kind, message: message(waiter.new) }));
    }
}
