//! How far apart two processors are: the time that a cache line takes from one to the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::stay_on;

/// A word for one way. The lines beside it are often fetched with it.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// Round trips between two looks at the clock, and how often that is done.
const TRIPS: u64 = 64;
const ROUNDS: usize = 33;
/// Other work on the processors may make a round trip a thousand times as long.
const PATIENCE: Duration = Duration::from_millis(50);
/// Says that there is nothing more to answer.
const END: u64 = u64::MAX;

/// The time one way in the fastest round, which other work on the processors disturbed least, or `None` if there was too much of
/// such work for any figure.
pub(super) fn one_way_ns(here: usize, there: usize) -> Option<f64> {
    let (out, back) = (Line::default(), Line::default());
    thread::scope(|scope| {
        scope.spawn(|| stay_on(there).map(|()| answer(&out, &back)));
        let asks = scope.spawn(|| {
            let rounds = stay_on(here).map(|()| ask(&out, &back));
            // The other thread ends, whatever happened here.
            out.0.store(END, Ordering::Release);
            rounds
        });
        asks.join().ok()?.ok()?.into_iter().min_by(f64::total_cmp)
    })
}

fn answer(out: &Line, back: &Line) {
    let mut last = 0;
    while last != END {
        // Each Acquire pairs with the other side's Release, as those of a message and its answer do.
        let number = out.0.load(Ordering::Acquire);
        if number != last {
            last = number;
            back.0.store(number, Ordering::Release);
        }
    }
}

fn ask(out: &Line, back: &Line) -> Vec<f64> {
    let begun = Instant::now();
    let mut rounds = Vec::with_capacity(ROUNDS);
    let mut number = 0;
    for _ in 0..ROUNDS {
        let round = Instant::now();
        for _ in 0..TRIPS {
            number += 1;
            out.0.store(number, Ordering::Release);
            let mut looks = 0u32;
            while back.0.load(Ordering::Acquire) != number {
                looks = looks.wrapping_add(1);
                if looks.is_multiple_of(4096) && begun.elapsed() > PATIENCE {
                    return rounds;
                }
            }
        }
        rounds.push(round.elapsed().as_nanos() as f64 / (2 * TRIPS) as f64);
    }
    rounds
}

#[cfg(test)]
mod tests {
    use nix::sched::CpuSet;

    use super::*;
    use crate::host::allowed_cpus;

    #[test]
    fn a_line_takes_some_time_and_the_measurement_ends() {
        let cpus = allowed_cpus();
        let [here, there] = [cpus[0], cpus[cpus.len() - 1]];
        // Without a second processor, or with one that is busy, there may be no figure.
        assert!(one_way_ns(here, there).is_none_or(|ns| ns > 0.0));
        let none = CpuSet::count();
        assert_eq!(one_way_ns(here, none), None);
        assert_eq!(one_way_ns(none, there), None);
    }
}
