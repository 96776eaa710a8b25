//! The highest rate of each carrier at which messages are on their way for at most 10 us.

use serde::Serialize;
use shm_bench::Result;
use shm_bench::daemon::Stage;
use shm_bench::measure::{self, Settings};
use shm_bench::outcome::Outcome;
use shm_bench::plan::{Case, Measure, Wait};
use shm_bench::rate::{Goal, Share, Tried, highest, search};
use shm_bench::stop::Stop;

use super::rows::{Peer, Row};

pub(crate) const LIMIT_NS: u64 = 10_000;

/// What was found for one carrier.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rate {
    #[serde(flatten)]
    pub(crate) case: Case,
    pub(crate) carrier: &'static str,
    /// The highest rate at which 90 % of the messages were within the limit; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    p90: Option<Tried>,
    /// The same of 99 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<Tried>,
    /// Every rate that was tried, in order.
    tried: Vec<Tried>,
}

impl Rate {
    pub(crate) fn of(&self, share: Share) -> Option<f64> {
        let found = match share {
            Share::P90 => self.p90,
            Share::P99 => self.p99,
        };
        found.map(|found| found.rate_per_s)
    }
}

/// Searches for each row of rates. `results` say where to begin.
pub(crate) fn all(
    stage: &Stage,
    rows: &[Row],
    peers: &[&Peer],
    results: &[Outcome],
    steps: u32,
    settings: &Settings,
    stop: Stop<'_>,
) -> Result<Vec<Rate>> {
    let mut rates = Vec::new();
    for row in rows.iter().filter(|row| row.case.measure == Measure::Rate) {
        for peer in peers {
            let Some(case) = row.of(peer) else { continue };
            crate::step(&case);
            let flood = throughput(&case);
            let known = results
                .iter()
                .find(|outcome| outcome.case.transport == case.transport && outcome.case.is_row_of(&flood));
            let about_per_s = match known {
                Some(outcome) => outcome.messages_per_s,
                None => measure::once(stage, &flood, settings, stop)?.messages_per_s,
            };
            let goal = Goal { limit_ns: LIMIT_NS, about_per_s, steps };
            let tried = search(stage, &case, &goal, settings, stop)?;
            let [p90, p99] = [Share::P90, Share::P99].map(|share| highest(&tried, share, &goal));
            rates.push(Rate { case, carrier: case.carrier(), p90, p99, tried });
        }
    }
    Ok(rates)
}

/// The same messages as fast as possible, through a channel of the same capacity.
fn throughput(case: &Case) -> Case {
    Case { measure: Measure::Throughput, wait: Wait::Sleep, ..*case }
}
