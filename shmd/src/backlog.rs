//! Whether a peer takes its answers: pure, so that it is tested without a clock.
//!
//! What counts is progress. A peer that takes something between two looks goes on, however slowly, but within limits:
//! it must have taken at the end of a period what waited for it at the beginning.

use std::time::{Duration, Instant};

/// A peer must take something within this time.
pub(crate) const TAKE: Duration = Duration::from_secs(5);
/// A peer must take everything that waits for it within this time.
const TAKE_ALL: Duration = Duration::from_secs(60);

/// What a peer with bytes to take must do, and by when.
#[derive(Clone, Copy, Debug)]
struct Watch {
    /// The bytes taken at the last look, and when the next look is due.
    taken: i64,
    next: Instant,
    /// The bytes to have taken, and by when.
    goal: i64,
    by: Instant,
}

/// Bytes that a peer was sent, and bytes that it has taken.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Sent so far, whether or not it has left the queue.
    sent: u64,
    watch: Option<Watch>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing is wrong.
    Fine,
    /// It has taken nothing since the last look.
    Nothing,
    /// It has taken something, but too little.
    TooSlow,
}

impl Backlog {
    /// More bytes wait for the peer.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// After an operation: the bytes that wait for the peer now, and whether some of them wait for the socket.
    pub(crate) fn settle(&mut self, now: Instant, waits: bool, untaken: usize) {
        if !waits {
            self.watch = None;
        } else if self.watch.is_none() {
            self.watch = Some(self.begin(now, untaken));
        }
    }

    /// When [`look`](Self::look) has to be asked.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.watch.map(|watch| watch.next.min(watch.by))
    }

    /// Checks whether the peer takes anything; `untaken` is the number of bytes that wait for the peer now.
    pub(crate) fn look(&mut self, now: Instant, untaken: usize) -> Found {
        let taken = self.taken(untaken);
        let fresh = self.begin(now, untaken);
        let Some(watch) = &mut self.watch else { return Found::Fine };
        if taken >= watch.goal {
            *watch = fresh;
            return Found::Fine;
        }
        if now >= watch.by {
            return Found::TooSlow;
        }
        if now >= watch.next {
            if taken <= watch.taken {
                return Found::Nothing;
            }
            (watch.taken, watch.next) = (taken, now + TAKE);
        }
        Found::Fine
    }

    fn begin(&self, now: Instant, untaken: usize) -> Watch {
        let sent = i64::try_from(self.sent).unwrap_or(i64::MAX);
        Watch { taken: self.taken(untaken), next: now + TAKE, goal: sent, by: now + TAKE_ALL }
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

    fn owing(bytes: usize, now: Instant) -> Backlog {
        let mut backlog = Backlog::default();
        backlog.sent(bytes);
        backlog.settle(now, true, bytes);
        backlog
    }

    #[test]
    fn a_peer_that_takes_nothing_is_found_at_the_next_look() {
        let now = Instant::now();
        let mut backlog = owing(100 * KIB, now);
        assert_eq!(backlog.deadline(), Some(now + TAKE));
        assert_eq!(backlog.look(now + TAKE / 2, 100 * KIB), Found::Fine);
        assert_eq!(backlog.look(now + TAKE, 100 * KIB), Found::Nothing);
    }

    #[test]
    fn a_peer_that_takes_a_little_each_time_goes_on_until_the_whole_takes_too_long() {
        let mut now = Instant::now();
        let start = now;
        let mut backlog = owing(1000 * KIB, now);
        let mut left = 1000 * KIB;
        let mut looks = 0;
        let end = loop {
            now = backlog.deadline().unwrap();
            left -= 8 * KIB;
            match backlog.look(now, left) {
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
        let mut backlog = owing(200 * KIB, now);
        let mut left = 200 * KIB;
        // For example, a follower of the log: as much arrives as it takes.
        for _ in 0..1000 {
            now = backlog.deadline().unwrap();
            left -= 40 * KIB;
            assert_eq!(backlog.look(now, left), Found::Fine);
            left += 40 * KIB;
            backlog.sent(40 * KIB);
            backlog.settle(now, true, left);
        }
    }

    #[test]
    fn whoever_has_taken_everything_begins_anew() {
        let now = Instant::now();
        let mut backlog = owing(KIB, now);
        backlog.settle(now + TAKE / 2, false, 0);
        assert_eq!((backlog.deadline(), backlog.look(now + TAKE * 2, 0)), (None, Found::Fine));
        backlog.sent(KIB);
        backlog.settle(now + TAKE * 2, true, KIB);
        assert_eq!(backlog.deadline(), Some(now + TAKE * 3));
    }
}
