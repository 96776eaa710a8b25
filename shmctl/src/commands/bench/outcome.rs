//! What came of it: one measurement, and the median of several.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::plan::Case;
use crate::error::{Failure, Result};

/// Times of single messages, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Percentiles {
    pub(super) samples: u64,
    pub(super) mean_ns: f64,
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p99_9_ns: u64,
    pub(super) max_ns: u64,
}

/// Collects times from 1 ns to an hour with three digits.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Result<Self> {
        const LONGEST_NS: u64 = 3_600_000_000_000;
        let made = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        made.map(Times).map_err(|e| Failure::Other(format!("cannot make a histogram: {e}")))
    }

    #[inline]
    pub(super) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        Percentiles {
            samples: self.0.len(),
            mean_ns: self.0.mean(),
            p50_ns: self.0.value_at_quantile(0.5),
            p90_ns: self.0.value_at_quantile(0.9),
            p99_ns: self.0.value_at_quantile(0.99),
            p99_9_ns: self.0.value_at_quantile(0.999),
            max_ns: self.0.max(),
        }
    }
}

/// What one worker has to say at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Messages between the first and the last that count; sent or received.
    pub(super) messages: u64,
    /// Their payload.
    pub(super) bytes: u64,
    /// The time between them.
    pub(super) elapsed_ns: u64,
    /// Processor time of the whole worker.
    pub(super) cpu_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Percentiles>,
}

/// One run of one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) messages_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) latency: Option<Percentiles>,
}

impl Sample {
    /// Of what the slowest reader has received.
    pub(super) fn new(slowest: &Measured) -> Self {
        let seconds = slowest.elapsed_ns.max(1) as f64 / 1e9;
        Sample {
            messages_per_s: slowest.messages as f64 / seconds,
            bytes_per_s: slowest.bytes as f64 / seconds,
            latency: slowest.latency,
        }
    }
}

/// A case and the median of its runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Outcome {
    #[serde(flatten)]
    pub(super) case: Case,
    pub(super) carrier: &'static str,
    pub(super) messages_per_s: f64,
    pub(super) bytes_per_s: f64,
    /// Every run's, in the order of the runs.
    pub(super) messages_per_s_of_runs: Vec<f64>,
    /// Percentile by percentile the median of the runs; of the largest, the largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Percentiles>,
}

impl Outcome {
    /// `None` without any run.
    pub(super) fn of(case: Case, samples: &[Sample]) -> Option<Self> {
        let rates: Vec<f64> = samples.iter().map(|sample| sample.messages_per_s).collect();
        let latencies: Vec<Percentiles> = samples.iter().filter_map(|sample| sample.latency).collect();
        Some(Outcome {
            case,
            carrier: case.carrier(),
            messages_per_s: median(rates.iter().copied())?,
            bytes_per_s: median(samples.iter().map(|sample| sample.bytes_per_s))?,
            messages_per_s_of_runs: rates,
            latency: merge(&latencies),
        })
    }
}

fn merge(of: &[Percentiles]) -> Option<Percentiles> {
    let middle = |field: fn(&Percentiles) -> u64| median(of.iter().map(|one| field(one) as f64)).map(|ns| ns as u64);
    Some(Percentiles {
        samples: of.iter().map(|one| one.samples).sum(),
        mean_ns: median(of.iter().map(|one| one.mean_ns))?,
        p50_ns: middle(|one| one.p50_ns)?,
        p90_ns: middle(|one| one.p90_ns)?,
        p99_ns: middle(|one| one.p99_ns)?,
        p99_9_ns: middle(|one| one.p99_9_ns)?,
        max_ns: of.iter().map(|one| one.max_ns).max()?,
    })
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(values[middle - 1].midpoint(values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Fill, Measure, Transport, Wait};
    use super::*;

    fn case() -> Case {
        Case {
            measure: Measure::Latency,
            transport: Transport::Ring,
            size_bytes: 64,
            readers: 1,
            batch: 1,
            fill: Fill::Copy,
            wait: Wait::Busy,
            capacity_bytes: 65_536,
        }
    }

    #[test]
    fn the_median_stands_in_the_middle() {
        assert_eq!(median([].into_iter()), None);
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0].into_iter()), Some(3.0));
    }

    #[test]
    fn percentiles_come_from_what_was_recorded() {
        let mut times = Times::new().unwrap();
        for ns in 1..=1000 {
            times.record(ns);
        }
        times.record(u64::MAX);
        let told = times.percentiles();
        assert_eq!((told.samples, told.p50_ns, told.p90_ns, told.p99_ns), (1001, 501, 901, 991));
        assert!(told.max_ns >= 3_600_000_000_000, "a time beyond the range counts as the longest");
    }

    #[test]
    fn runs_become_one_outcome_with_every_runs_figure() {
        let run = |messages: u64, p50_ns: u64, max_ns: u64| {
            let mut times = Times::new().unwrap();
            times.record(p50_ns);
            let latency = Percentiles { max_ns, ..times.percentiles() };
            let elapsed_ns = 500_000_000;
            Sample::new(&Measured { messages, bytes: messages * 64, elapsed_ns, cpu_ns: 1, latency: Some(latency) })
        };
        let outcome = Outcome::of(case(), &[run(100, 10, 50), run(300, 30, 40), run(200, 20, 90)]).unwrap();
        assert_eq!(outcome.messages_per_s, 400.0);
        assert_eq!(outcome.bytes_per_s, 25_600.0);
        assert_eq!(outcome.messages_per_s_of_runs, [200.0, 600.0, 400.0]);
        let latency = outcome.latency.unwrap();
        assert_eq!((latency.samples, latency.p50_ns, latency.max_ns), (3, 20, 90));
        assert_eq!(Outcome::of(case(), &[]), None);
    }
}
