//! How long to look before going to sleep.
//!
//! Going to sleep and being woken costs both sides: system calls, a barrier that interrupts a running writer, and until the
//! sleeper runs again some 50 us on a virtual machine. Where the other side is only a little slower, both fall asleep again
//! and again, and the rate drops to a third. So a wait that is likely to be short is spent looking, for about as long as a
//! wake-up would take. It is likely after another short one; a look that was in vain makes the next one rarer, and nobody
//! who waits for long looks at all. An idle reader costs nothing, and a stream that is a little too slow to look for next to
//! nothing.
//!
//! Between looks the processor is offered to whoever wants it: with more processes than processors it may be the very one
//! that is waited for. When somebody took it the look is over, because sleeping is what makes room.

use std::thread::yield_now;

use crate::os::clock::monotonic_ns;

/// A look takes so long at most: about what being woken takes.
const LOOK_NS: u64 = 50_000;
/// After a wait of this length, sleep included, the next may be short enough to be looked for.
const SHORT_NS: u64 = 200_000;
/// The processor was given away if offering it took so long.
const CROWDED_NS: u64 = 10_000;
/// Glances between two offers of the processor.
const GLANCES: u32 = 8;
/// Waits that go without a look after as many looks in vain that more would not help.
const MOST_PASSED_OVER: u32 = 127;

#[derive(Debug, Default)]
pub(super) struct Haste {
    /// The last wait was short.
    short: bool,
    /// Waits to go without a look.
    passed_over: u32,
    /// The waits that the last look in vain has cost.
    forfeit: u32,
}

impl Haste {
    /// Looks for a while, if that is promising, and not beyond the moment: whether `look` has seen something.
    pub(super) fn look_on(&mut self, until_ns: u64, mut look: impl FnMut() -> bool) -> bool {
        if !self.short {
            return false;
        }
        if self.passed_over > 0 {
            self.passed_over -= 1;
            return false;
        }
        let begun = monotonic_ns();
        let mut before = begun;
        loop {
            for _ in 0..GLANCES {
                std::hint::spin_loop();
                if look() {
                    self.forfeit = 0;
                    return true;
                }
            }
            yield_now();
            let now = monotonic_ns();
            if now - begun > LOOK_NS || now - before > CROWDED_NS || now >= until_ns {
                break;
            }
            before = now;
        }
        self.forfeit = (2 * self.forfeit + 1).min(MOST_PASSED_OVER);
        self.passed_over = self.forfeit;
        look()
    }

    /// A wait that went to sleep took so long.
    pub(super) fn slept(&mut self, ns: u64) {
        self.short = ns < SHORT_NS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: u64 = u64::MAX;

    fn looks(haste: &mut Haste) -> bool {
        let mut looked = false;
        assert!(!haste.look_on(NEVER, || {
            looked = true;
            false
        }));
        looked
    }

    #[test]
    fn a_look_is_worth_it_after_a_short_wait_only() {
        let mut haste = Haste::default();
        assert!(!looks(&mut haste));
        haste.slept(SHORT_NS - 1);
        assert!(looks(&mut haste));
        let mut haste = Haste::default();
        haste.slept(SHORT_NS - 1);
        haste.slept(SHORT_NS);
        assert!(!looks(&mut haste));
    }

    #[test]
    fn looks_in_vain_become_rarer_until_one_is_not() {
        let mut haste = Haste { short: true, ..Haste::default() };
        let mut passed_over = Vec::new();
        for _ in 0..9 {
            assert!(looks(&mut haste));
            let left = haste.passed_over;
            assert!((0..left).all(|_| !looks(&mut haste)));
            passed_over.push(left);
        }
        assert_eq!(passed_over, [1, 3, 7, 15, 31, 63, 127, 127, 127]);
        assert!(haste.look_on(NEVER, || true));
        assert!(looks(&mut haste));
        assert_eq!(haste.passed_over, 1);
    }

    #[test]
    fn a_look_ends_with_the_time_to_wait() {
        let mut haste = Haste { short: true, ..Haste::default() };
        let mut glances = 0;
        assert!(!haste.look_on(0, || {
            glances += 1;
            false
        }));
        assert_eq!(glances, GLANCES + 1);
    }
}
