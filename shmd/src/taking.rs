//! Whether a peer takes its answers: pure, so that it is tested without a clock.
//!
//! What counts is progress. A peer that takes something between two looks goes on, however slowly, but not for ever: what lay
//! there at the beginning of a period has to be gone at its end.

use std::time::{Duration, Instant};

/// A peer has to take something within this time.
pub(crate) const TAKE: Duration = Duration::from_secs(5);
/// A peer has to take all that lies there within this time.
pub(crate) const TAKE_ALL: Duration = Duration::from_secs(60);

/// A peer that something lies there for.
#[derive(Clone, Copy, Debug)]
struct Debt {
    /// What it had taken at the last look, and when the next look is due.
    taken: i64,
    next: Instant,
    /// What it has to have taken, and by when.
    goal: i64,
    by: Instant,
}

/// Bytes that a peer was sent, and bytes that it has taken.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// Sent so far, whether or not it has left the queue.
    sent: u64,
    debt: Option<Debt>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is nothing to be said yet.
    Fine,
    /// It has taken nothing since the last look.
    Nothing,
    /// It has taken something, and not all that it should have.
    TooSlow,
}

impl Taking {
    /// So many bytes more lie there for the peer.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// After an operation: the bytes that lie there now, and whether some of them wait for the socket.
    pub(crate) fn settle(&mut self, now: Instant, waits: bool, untaken: usize) {
        if !waits {
            self.debt = None;
        } else if self.debt.is_none() {
            self.debt = Some(self.begin(now, untaken));
        }
    }

    /// When [`look`](Self::look) has to be asked.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.debt.map(|debt| debt.next.min(debt.by))
    }

    /// Checks whether the peer takes anything; the argument is the bytes that lie there now.
    pub(crate) fn look(&mut self, now: Instant, untaken: usize) -> Found {
        let taken = self.taken(untaken);
        let fresh = self.begin(now, untaken);
        let Some(debt) = &mut self.debt else { return Found::Fine };
        if taken >= debt.goal {
            *debt = fresh;
            return Found::Fine;
        }
        if now >= debt.by {
            return Found::TooSlow;
        }
        if now >= debt.next {
            if taken <= debt.taken {
                return Found::Nothing;
            }
            (debt.taken, debt.next) = (taken, now + TAKE);
        }
        Found::Fine
    }

    fn begin(&self, now: Instant, untaken: usize) -> Debt {
        let sent = i64::try_from(self.sent).unwrap_or(i64::MAX);
        Debt { taken: self.taken(untaken), next: now + TAKE, goal: sent, by: now + TAKE_ALL }
    }

    /// A socket holds more memory than it holds bytes: this is somewhat less than what was taken.
    fn taken(&self, untaken: usize) -> i64 {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        signed(self.sent) - signed(untaken as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn owing(bytes: usize, now: Instant) -> Taking {
        let mut taking = Taking::default();
        taking.sent(bytes);
        taking.settle(now, true, bytes);
        taking
    }

    #[test]
    fn a_peer_that_takes_nothing_is_found_at_the_next_look() {
        let now = Instant::now();
        let mut taking = owing(100 * KIB, now);
        assert_eq!(taking.deadline(), Some(now + TAKE));
        assert_eq!(taking.look(now + TAKE / 2, 100 * KIB), Found::Fine);
        assert_eq!(taking.look(now + TAKE, 100 * KIB), Found::Nothing);
    }

    #[test]
    fn a_peer_that_takes_a_little_each_time_goes_on_until_the_whole_takes_too_long() {
        let mut now = Instant::now();
        let start = now;
        let mut taking = owing(1000 * KIB, now);
        let mut left = 1000 * KIB;
        let mut looks = 0;
        let end = loop {
            now = taking.deadline().unwrap();
            left -= 8 * KIB;
            match taking.look(now, left) {
                Found::Fine => looks += 1,
                end => break end,
            }
        };
        assert_eq!((end, now), (Found::TooSlow, start + TAKE_ALL));
        assert!(looks >= 10, "{looks}");
    }

    #[test]
    fn a_peer_that_keeps_up_on_the_whole_is_never_done_and_never_cut_off() {
        let mut now = Instant::now();
        let mut taking = owing(200 * KIB, now);
        let mut left = 200 * KIB;
        // A follower of the log, say: as much comes as it takes.
        for _ in 0..1000 {
            now = taking.deadline().unwrap();
            left -= 40 * KIB;
            assert_eq!(taking.look(now, left), Found::Fine);
            left += 40 * KIB;
            taking.sent(40 * KIB);
            taking.settle(now, true, left);
        }
    }

    #[test]
    fn whoever_has_taken_everything_begins_anew() {
        let now = Instant::now();
        let mut taking = owing(KIB, now);
        taking.settle(now + TAKE / 2, false, 0);
        assert_eq!((taking.deadline(), taking.look(now + TAKE * 2, 0)), (None, Found::Fine));
        taking.sent(KIB);
        taking.settle(now + TAKE * 2, true, KIB);
        assert_eq!(taking.deadline(), Some(now + TAKE * 3));
    }
}
