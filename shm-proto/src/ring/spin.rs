//! How long to spin before going to sleep.
//!
//! A thread that waits spins for a few microseconds. The clock limits this, because a `spin_loop` hint takes 10 ns on one
//! processor and 60 ns on another.
//!
//! Sleep costs both sides: system calls, a barrier that interrupts a running writer, and on a virtual machine some 50 us until
//! the sleeper runs again. If the other side is only a little slower, both sides fall asleep again and again, and the rate
//! drops to a third. So a thread spins through a wait that is likely to be short, for about as long as a wake-up would take. A
//! wait is likely to be short if the last one was. Spinning in vain makes the next attempt rarer, and a thread whose waits are
//! long does not spin at all. So an idle reader costs nothing, and a reader of a stream that is a little too slow costs next to
//! nothing.
//!
//! While it spins, a thread offers the processor to other threads. With more processes than processors, the process that it waits
//! for may need this very processor, and taking turns is cheaper than sleeping and being woken. A long computation of an
//! unrelated process may also take the processor; a sleeper would have interrupted it. That happens once, and then not again for
//! a long time.

use std::thread::yield_now;

use crate::os::clock::monotonic_ns;

/// The longest time to spin, without the time that other threads had the processor: about as long as a wake-up takes.
const LOOK_NS: u64 = 50_000;
/// After a wait of at most this length, including sleep, the next wait may be short enough to spin.
const SHORT_NS: u64 = 500_000;
/// If offering the processor takes this long, another thread took it.
const TAKEN_NS: u64 = 10_000;
/// If offering the processor takes this long, a thread took it that computes for a long time: a time slice is 3 to 10 ms, as a
/// rule. Dozens of peers that take turns are faster.
const HELD_NS: u64 = 2_000_000;
/// Spinning ends when the processor was taken this many times.
const MOST_TAKEN: u32 = 4;
/// Looks between two offers of the processor.
const GLANCES: u32 = 8;
/// The largest number of waits without spinning after spinning in vain.
const MOST_FORFEIT: u32 = 127;
/// Waits without spinning after another thread held the processor: after the first time, and at most. That is minutes at the pace
/// at which spinning pays.
const BAN: (u32, u32) = (1 << 10, 1 << 20);
/// After spinning this many times without that, the next time counts as a first one again.
const TRUST: u32 = 1 << 8;

/// Every thread spins this long before going to sleep, without offering the processor.
pub(super) const SPIN_NS: u64 = 3_000;

/// Spins for this long. Returns whether `look` has seen something.
#[inline]
pub(super) fn spin(time_ns: u64, mut look: impl FnMut() -> bool) -> bool {
    let mut until = None;
    loop {
        for _ in 0..GLANCES {
            std::hint::spin_loop();
            if look() {
                return true;
            }
        }
        let now = monotonic_ns();
        if now >= *until.get_or_insert(now + time_ns) {
            return false;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Spin {
    /// The last wait was short.
    short: bool,
    /// Waits that are still to go without spinning.
    passed_over: u32,
    /// The number of waits without spinning after the last spinning in vain.
    forfeit: u32,
    /// The number of waits without spinning after another thread last held the processor.
    ban: u32,
    /// Times of spinning since then.
    trust: u32,
}

impl Spin {
    /// Spins for a while if the wait is likely to be short, but not beyond the given moment. Returns whether `look` has seen
    /// something.
    pub(super) fn look_on(&mut self, until_ns: u64, look: impl FnMut() -> bool) -> bool {
        let offer = || {
            yield_now();
            monotonic_ns()
        };
        self.is_promising() && self.look_from(monotonic_ns(), until_ns, look, offer)
    }

    /// Whether to spin this time. Each time without spinning counts towards the next time with it.
    fn is_promising(&mut self) -> bool {
        let passed_over = self.passed_over;
        if self.short {
            self.passed_over = passed_over.saturating_sub(1);
        }
        self.short && passed_over == 0
    }

    /// Spins from `before` on. `offer` gives the processor to any thread that wants it, and returns the time afterwards.
    fn look_from(
        &mut self,
        mut before: u64,
        until_ns: u64,
        mut look: impl FnMut() -> bool,
        mut offer: impl FnMut() -> u64,
    ) -> bool {
        self.trust = self.trust.saturating_add(1);
        let (mut spent, mut taken) = (0, 0);
        while spent < LOOK_NS && taken < MOST_TAKEN && before < until_ns {
            for _ in 0..GLANCES {
                std::hint::spin_loop();
                if look() {
                    self.forfeit = 0;
                    return true;
                }
            }
            let now = offer();
            let away = now - before;
            before = now;
            if away > HELD_NS {
                self.held();
                return look();
            }
            if away > TAKEN_NS {
                taken += 1;
            } else {
                spent += away;
            }
        }
        self.forfeit = (2 * self.forfeit + 1).min(MOST_FORFEIT);
        self.passed_over = self.forfeit;
        look()
    }

    /// The processor was offered and came back late.
    fn held(&mut self) {
        let before = if self.trust > TRUST { 0 } else { self.ban };
        self.ban = (8 * before).clamp(BAN.0, BAN.1);
        self.passed_over = self.ban;
        self.trust = 0;
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

    /// A wait in which nothing comes, where an offer of the processor takes so long: whether it was spent looking.
    fn looks_at(spin: &mut Spin, offer_ns: u64) -> bool {
        let mut now = 0;
        let looks = spin.is_promising();
        let offer = || {
            now += offer_ns;
            now
        };
        assert!(!(looks && spin.look_from(0, NEVER, || false, offer)));
        looks
    }

    fn looks(spin: &mut Spin) -> bool {
        looks_at(spin, 1_000)
    }

    #[test]
    fn a_look_is_worth_it_after_a_short_wait_only() {
        let mut spin = Spin::default();
        assert!(!looks(&mut spin));
        spin.slept(SHORT_NS - 1);
        assert!(looks(&mut spin));
        let mut spin = Spin::default();
        spin.slept(SHORT_NS - 1);
        spin.slept(SHORT_NS);
        assert!(!looks(&mut spin));
    }

    #[test]
    fn looks_in_vain_become_rarer_until_one_is_not() {
        let mut spin = Spin { short: true, ..Spin::default() };
        let mut passed_over = Vec::new();
        for _ in 0..9 {
            assert!(looks(&mut spin));
            let left = spin.passed_over;
            assert!((0..left).all(|_| !looks(&mut spin)));
            passed_over.push(left);
        }
        assert_eq!(passed_over, [1, 3, 7, 15, 31, 63, 127, 127, 127]);
        assert!(spin.look_on(NEVER, || true));
        assert!(looks(&mut spin));
        assert_eq!(spin.passed_over, 1);
    }

    #[test]
    fn a_processor_that_is_held_ends_looking_for_long_and_for_longer_every_time() {
        let mut spin = Spin { short: true, ..Spin::default() };
        let bans: Vec<u32> = (0..5)
            .map(|_| {
                spin.passed_over = 0;
                assert!(looks_at(&mut spin, HELD_NS + 1));
                spin.passed_over
            })
            .collect();
        assert_eq!(bans, [1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 20]);
        assert!(!looks(&mut spin));
        spin.passed_over = 0;
        for _ in 0..TRUST {
            assert!(spin.look_on(NEVER, || true));
        }
        assert!(looks_at(&mut spin, HELD_NS + 1));
        assert_eq!(spin.passed_over, 1 << 10);
    }

    #[test]
    fn a_look_ends_when_the_processor_was_taken_a_few_times() {
        let mut spin = Spin { short: true, ..Spin::default() };
        let (mut now, mut offers) = (0, 0);
        let offer = || {
            offers += 1;
            now += TAKEN_NS + 1;
            now
        };
        assert!(!spin.look_from(0, NEVER, || false, offer));
        assert_eq!((offers, spin.passed_over), (MOST_TAKEN, 1));
    }

    #[test]
    fn spinning_ends_with_success_or_after_its_time() {
        let mut left = 3;
        assert!(spin(SPIN_NS, || {
            left -= 1;
            left == 0
        }));
        let begun = monotonic_ns();
        assert!(!spin(SPIN_NS, || false));
        assert!(monotonic_ns() - begun >= SPIN_NS);
    }

    #[test]
    fn without_time_to_wait_there_is_one_glance() {
        let mut spin = Spin { short: true, ..Spin::default() };
        let mut glances = 0;
        assert!(!spin.look_on(0, || {
            glances += 1;
            false
        }));
        assert_eq!(glances, 1);
    }
}
