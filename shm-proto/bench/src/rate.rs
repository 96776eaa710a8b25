//! The highest rate at which messages are not on their way for longer than a limit.
//!
//! Messages are due at fixed moments and carry these, so that what a writer could not send in time counts as waiting, too
//! (`flow::keep_rate`). The rate is found by trying: `next_rate` decides, from what has been tried, what to try next.

use serde::Serialize;

use crate::Result;
use crate::daemon::Stage;
use crate::measure::{self, Settings};
use crate::outcome::Percentiles;
use crate::plan::Case;
use crate::stop::Stop;

/// How many of the messages have to be within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    P90,
    P99,
}

impl Share {
    fn ns(self, of: &Percentiles) -> u64 {
        match self {
            Share::P90 => of.p90_ns,
            Share::P99 => of.p99_ns,
        }
    }
}

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Goal {
    pub limit_ns: u64,
    /// Where to begin: messages per second that this carrier has carried without a limit.
    pub about_per_s: f64,
    /// How many rates to try for each share.
    pub steps: u32,
}

/// What came of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tried {
    pub rate_per_s: f64,
    pub latency: Percentiles,
}

/// Tries rates for 90 % of the messages and then for 99 %, until `next_rate` knows no further one. Returns all that were tried.
/// [`highest`] says what came of it.
pub fn search(stage: &Stage, case: &Case, goal: &Goal, settings: &Settings, stop: Stop<'_>) -> Result<Vec<Tried>> {
    // Enough messages for a percentile.
    let least = 1000.0 / settings.duration.as_secs_f64().max(0.001);
    let mut tried = Vec::new();
    for share in [Share::P90, Share::P99] {
        for _ in 0..goal.steps {
            let Some(rate_per_s) = next_rate(&tried, share, goal, least) else { break };
            // Once more if it was too much: other work on the machine may have been the reason.
            for _ in 0..2 {
                let settings = Settings { interval_ps: (1e12 / rate_per_s) as u64, ..settings.clone() };
                let sample = measure::once(stage, case, &settings, stop)?;
                tried.extend(sample.latency.map(|latency| Tried { rate_per_s, latency }));
                if tried.last().is_some_and(|last| share.ns(&last.latency) <= goal.limit_ns) {
                    break;
                }
            }
        }
    }
    Ok(tried)
}

/// The highest rate of those tried that was within the limit.
pub fn highest(tried: &[Tried], share: Share, goal: &Goal) -> Option<Tried> {
    let good = tried.iter().filter(|one| share.ns(&one.latency) <= goal.limit_ns);
    good.max_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s)).copied()
}

/// A rate that is known as closely as this is known.
const CLOSE: f64 = 1.03;
/// The way down as long as no rate is within the limit.
const DOWN: f64 = 4.0;

/// The next rate to try, or `None` if the highest one is known closely enough or is below `least`.
fn next_rate(tried: &[Tried], share: Share, goal: &Goal, least: f64) -> Option<f64> {
    // A reader that polls may take more than one that sleeps.
    let top = goal.about_per_s * 2.0;
    let good = highest(tried, share, goal).map(|one| one.rate_per_s);
    let above = tried.iter().map(|one| one.rate_per_s).filter(|&rate| good.is_none_or(|good| rate > good));
    let too_high = above.fold(top, f64::min);
    match good {
        Some(good) if too_high / good <= CLOSE => None,
        Some(good) => Some((good * too_high).sqrt()),
        None => Some(too_high / DOWN).filter(|&rate| rate >= least),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOAL: Goal = Goal { limit_ns: 10_000, about_per_s: 1e6, steps: 8 };

    /// What a carrier would show that is within the limit to `p90_to` and `p99_to` messages per second.
    fn tried(rate_per_s: f64, p90_to: f64, p99_to: f64) -> Tried {
        let ns = |to| if rate_per_s <= to { 9_999 } else { 10_001 };
        let (p90_ns, p99_ns) = (ns(p90_to), ns(p99_to));
        let latency =
            Percentiles { samples: 1, mean_ns: 1.0, p50_ns: 1, p90_ns, p99_ns, p99_9_ns: p99_ns, max_ns: p99_ns };
        Tried { rate_per_s, latency }
    }

    fn search(p90_to: f64, p99_to: f64) -> (Vec<Tried>, Option<f64>, Option<f64>) {
        let mut all = Vec::new();
        for share in [Share::P90, Share::P99] {
            for _ in 0..GOAL.steps {
                let Some(rate) = next_rate(&all, share, &GOAL, 1000.0) else { break };
                all.push(tried(rate, p90_to, p99_to));
            }
        }
        let [p90, p99] = [Share::P90, Share::P99].map(|share| highest(&all, share, &GOAL).map(|one| one.rate_per_s));
        (all, p90, p99)
    }

    #[test]
    fn the_highest_rate_is_found_from_both_sides() {
        for (p90_to, p99_to) in [(700e3, 500e3), (40e3, 30e3), (1.5e6, 1.1e6)] {
            let (all, p90, p99) = search(p90_to, p99_to);
            for (found, real) in [(p90.unwrap(), p90_to), (p99.unwrap(), p99_to)] {
                assert!(found <= real && found * 1.05 > real, "{found} of {real}");
            }
            assert!(all.len() <= 16, "{}", all.len());
        }
    }

    #[test]
    fn a_carrier_that_is_never_within_the_limit_ends_the_search() {
        let (all, p90, p99) = search(0.0, 0.0);
        assert_eq!((p90, p99), (None, None));
        assert!(all.len() <= 8 && all.iter().all(|one| one.rate_per_s >= 1000.0), "{all:?}");
        // 99 % may be out of reach where 90 % are not.
        let (_, p90, p99) = search(300e3, 0.0);
        assert!(p90.is_some() && p99.is_none());
    }

    #[test]
    fn a_rate_that_was_good_once_is_good() {
        let all = [tried(5e5, 0.0, 0.0), tried(5e5, 1e6, 1e6)];
        assert_eq!(highest(&all, Share::P99, &GOAL).unwrap().rate_per_s, 5e5);
        assert!(next_rate(&all, Share::P99, &GOAL, 1000.0).unwrap() > 5e5);
    }
}
