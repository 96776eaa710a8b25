//! Hanging back behind a fast writer.
//!
//! A reader that runs close behind a fast writer takes away the cache line that the writer is about to write, for every
//! message. A reader that hangs back for a moment finds several messages at once, and costs the writer nothing. So a
//! reader that has read everything pauses before it looks again. The more messages came without a pause, the longer the
//! pause. In a ping-pong, the pause has length one, about 50 ns. The pause is never longer than the ring has room for,
//! because the writer must wait, too, while the ring is full.

use crate::ring::walker::Walker;

/// The longest pause, in `spin_loop` hints: 2 to 13 us. The hint is `pause` on x86-64 and `isb` on 64-bit Arm, which
/// takes about as long.
const LONGEST: u64 = 256;

#[derive(Debug)]
pub(super) struct Pause {
    /// The message at which the last pause was.
    seq: u64,
    pos: u64,
    /// The current limit, in hints. Halved if a run of messages filled half of the ring, doubled if it filled less than
    /// a quarter.
    longest: u64,
}

impl Pause {
    pub(super) fn new() -> Pause {
        Pause { seq: 0, pos: 0, longest: LONGEST }
    }

    /// Starts again at this place.
    pub(super) fn begin(&mut self, at: &Walker) {
        (self.seq, self.pos) = (at.seq, at.pos());
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
        messages.min(self.longest)
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
    fn a_pause_is_as_long_as_the_run_before_it_had_messages() {
        let mut pause = Pause::new();
        pause.begin(&at(7, 700));
        assert_eq!(pause.at(&at(8, 800), 1 << 20), 1);
        assert_eq!(pause.at(&at(8, 800), 1 << 20), 0);
        assert_eq!(pause.at(&at(58, 5_800), 1 << 20), 50);
        assert_eq!(pause.at(&at(1_058, 105_800), 1 << 20), LONGEST);
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
