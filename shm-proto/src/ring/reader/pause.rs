//! Hanging back behind a fast writer.
//!
//! A reader that runs close behind a fast writer takes away the cache line that the writer is about to write, for every
//! message. A reader that hangs back for a moment finds several messages at once, and costs the writer nothing. So a
//! reader that has read everything pauses before it looks again, for as many hints as the messages that came without a
//! pause have cache lines, and at least as many as there were messages: so long, the writer is busy with as many again.
//! The pause is never longer than the ring has room for, because the writer must wait, too, while the ring is full.
//!
//! After a single message, as in a ping-pong, the pause has length one, about 50 ns. But a stream of larger messages can
//! also come to that: the reader takes each message as soon as it is there. Once in [`TRIAL`] single messages, the pause
//! is as long as the message, and if it was a stream, several messages come at once from then on.

use crate::ring::layout::LINE;
use crate::ring::walker::Walker;

/// The longest pause, in `spin_loop` hints: 2 to 13 us. The hint is `pause` on x86-64 and `isb` on 64-bit Arm, which
/// takes about as long.
const LONGEST: u64 = 256;
/// Rare enough to leave the 99th percentile of a ping-pong alone.
const TRIAL: u32 = 256;

#[derive(Debug)]
pub(super) struct Pause {
    /// The message at which the last pause was.
    seq: u64,
    pos: u64,
    /// The current limit, in hints. Halved if a run of messages filled half of the ring, doubled if it filled less than
    /// a quarter.
    longest: u64,
    /// Runs of one message.
    singles: u32,
}

impl Pause {
    pub(super) fn new() -> Pause {
        Pause { seq: 0, pos: 0, longest: LONGEST, singles: 0 }
    }

    /// Starts again at this place.
    pub(super) fn begin(&mut self, at: &Walker) {
        (self.seq, self.pos) = (at.seq, at.pos());
    }

    /// Whether the reader has read anything since the last pause.
    #[inline(always)]
    pub(super) fn is_due(&self, at: &Walker) -> bool {
        at.seq != self.seq
    }

    /// The length of the pause, in `spin_loop` hints, after the reader has read everything before this place in a ring
    /// of this capacity.
    #[inline]
    pub(super) fn at(&mut self, at: &Walker, capacity: u64) -> u64 {
        let (messages, bytes) = (at.seq - self.seq, at.pos() - self.pos);
        self.begin(at);
        if bytes > capacity / 2 {
            self.longest = (self.longest / 2).max(1);
        } else if bytes < capacity / 4 {
            self.longest = (self.longest * 2).min(LONGEST);
        }
        if messages == 1 {
            self.singles = self.singles.wrapping_add(1);
            if !self.singles.is_multiple_of(TRIAL) {
                return 1;
            }
        }
        messages.max(bytes / LINE).min(self.longest)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::published::Place;

    fn at(seq: u64, pos: u64) -> Walker {
        Walker::at(Place { pos, off: 0, seq, bytes: 0 })
    }

    #[test]
    fn a_pause_is_as_long_as_the_run_before_it_had_messages_or_lines() {
        let mut pause = Pause::new();
        pause.begin(&at(7, 700));
        assert_eq!(pause.at(&at(8, 800), 1 << 20), 1);
        assert!(!pause.is_due(&at(8, 800)) && pause.is_due(&at(9, 816)));
        assert_eq!(pause.at(&at(8, 800), 1 << 20), 0);
        assert_eq!(pause.at(&at(58, 1_600), 1 << 20), 50);
        assert_eq!(pause.at(&at(60, 3_680), 1 << 20), 32);
        assert_eq!(pause.at(&at(1_060, 103_680), 1 << 20), LONGEST);
    }

    #[test]
    fn after_a_single_message_the_pause_is_short_but_for_a_trial_now_and_then() {
        let mut pause = Pause::new();
        let pauses: Vec<u64> = (1..=2 * u64::from(TRIAL)).map(|n| pause.at(&at(n, n * 1_040), 1 << 20)).collect();
        let trials: Vec<usize> = (1..=pauses.len()).filter(|n| pauses[n - 1] != 1).collect();
        assert_eq!((trials, pauses[255]), (vec![256, 512], 16));
        // Messages of no more than two lines have nothing to try.
        let mut pause = Pause::new();
        assert!((1..=1_000).all(|n| pause.at(&at(n, n * 80), 1 << 20) == 1));
    }

    #[test]
    fn runs_that_fill_half_of_the_ring_make_pauses_shorter_until_they_do_not() {
        let mut pause = Pause::new();
        let (mut seq, mut pos) = (0, 0);
        let mut run = |bytes: u64| {
            (seq, pos) = (seq + 1000, pos + bytes);
            pause.at(&at(seq, pos), 64 << 10)
        };
        assert_eq!([run(60 << 10), run(60 << 10), run(33 << 10)], [128, 64, 32]);
        assert_eq!([run(32 << 10), run(16 << 10)], [32, 32], "neither too long nor too short");
        assert_eq!([run(8 << 10), run(8 << 10), run(1 << 10), run(1 << 10)], [64, 128, 256, 256]);
        assert!((0..20).map(|_| run(64 << 10)).all(|pause| pause >= 1));
    }
}
