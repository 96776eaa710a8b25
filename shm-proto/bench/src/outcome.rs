//! Results: one measurement, and the median of several.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cpu::CpuTime;
use crate::plan::Case;
use crate::{Failure, Result};

/// Times of single messages, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub samples: u64,
    pub mean_ns: f64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub max_ns: u64,
}

/// Collects times from 1 ns to an hour with three digits.
#[derive(Debug)]
pub struct Times(Histogram<u64>);

impl Times {
    pub fn new() -> Result<Self> {
        const LONGEST_NS: u64 = 3_600_000_000_000;
        let made = Histogram::new_with_bounds(1, LONGEST_NS, 3);
        made.map(Times).map_err(|e| Failure::Other(format!("cannot make a histogram: {e}")))
    }

    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub fn percentiles(&self) -> Percentiles {
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

/// What one worker reports at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Messages between the first and the last that count; sent or received.
    pub messages: u64,
    /// The time between them.
    pub elapsed_ns: u64,
    /// The processor time that the worker used in it.
    #[serde(default)]
    pub cpu: CpuTime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Percentiles>,
}

/// Processor time for each message, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    pub user_ns: f64,
    pub system_ns: f64,
}

impl Spent {
    pub fn ns(&self) -> f64 {
        self.user_ns + self.system_ns
    }

    fn of(measured: &Measured) -> Self {
        let each = |ns: u64| ns as f64 / measured.messages.max(1) as f64;
        Spent { user_ns: each(measured.cpu.user_ns), system_ns: each(measured.cpu.system_ns) }
    }

    fn combine(of: &[Spent], how: fn(&mut dyn Iterator<Item = f64>) -> Option<f64>) -> Option<Self> {
        let user_ns = how(&mut of.iter().map(|one| one.user_ns))?;
        Some(Spent { user_ns, system_ns: how(&mut of.iter().map(|one| one.system_ns))? })
    }
}

/// Processor time for each message, of the writer and of one reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub writer: Spent,
    /// The mean of all readers.
    pub reader: Spent,
}

impl Cpu {
    /// From what the workers measured, the writer first.
    pub fn of(results: &[Measured]) -> Option<Self> {
        let (writer, readers) = results.split_first()?;
        let readers: Vec<Spent> = readers.iter().map(Spent::of).collect();
        Some(Cpu { writer: Spent::of(writer), reader: Spent::combine(&readers, |values| mean(values))? })
    }

    fn median(of: &[Cpu]) -> Option<Self> {
        let part = |which: fn(&Cpu) -> Spent| {
            let spent: Vec<Spent> = of.iter().map(which).collect();
            Spent::combine(&spent, |values| median(values))
        };
        Some(Cpu { writer: part(|one| one.writer)?, reader: part(|one| one.reader)? })
    }
}

/// One run of one case.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    pub messages_per_s: f64,
    pub latency: Option<Percentiles>,
    pub cpu: Option<Cpu>,
}

impl Sample {
    /// The sample of a run, by the figures of its slowest reader.
    pub fn new(slowest: &Measured) -> Self {
        let seconds = slowest.elapsed_ns.max(1) as f64 / 1e9;
        Sample { messages_per_s: slowest.messages as f64 / seconds, latency: slowest.latency, cpu: None }
    }
}

/// A case and the median of its runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    #[serde(flatten)]
    pub case: Case,
    pub carrier: &'static str,
    pub messages_per_s: f64,
    pub bytes_per_s: f64,
    /// One figure for each run, in order.
    pub messages_per_s_of_runs: Vec<f64>,
    /// The median of the runs for each percentile, and the largest time of all runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Percentiles>,
    /// The median of the runs; absent for a pipeline, whose programs are not ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
}

impl Outcome {
    /// `None` if there was no run.
    pub fn of(case: Case, samples: &[Sample]) -> Option<Self> {
        let rates: Vec<f64> = samples.iter().map(|sample| sample.messages_per_s).collect();
        let latencies: Vec<Percentiles> = samples.iter().filter_map(|sample| sample.latency).collect();
        let cpus: Vec<Cpu> = samples.iter().filter_map(|sample| sample.cpu).collect();
        let messages_per_s = median(rates.iter().copied())?;
        Some(Outcome {
            case,
            carrier: case.carrier(),
            messages_per_s,
            bytes_per_s: messages_per_s * case.size_bytes as f64,
            messages_per_s_of_runs: rates,
            latency: merge(&latencies),
            cpu: Cpu::median(&cpus),
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

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// The middle value, or the mean of the two middle values; `None` if there is no value.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
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
    use super::*;
    use crate::plan::{Measure, Transport};

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
            Sample::new(&Measured { messages, elapsed_ns, latency: Some(latency), ..Measured::default() })
        };
        let case = Case::new(Measure::Latency, Transport::Ring, 64, 65_536);
        let outcome = Outcome::of(case, &[run(100, 10, 50), run(300, 30, 40), run(200, 20, 90)]).unwrap();
        assert_eq!(outcome.messages_per_s, 400.0);
        assert_eq!(outcome.bytes_per_s, 25_600.0);
        assert_eq!(outcome.messages_per_s_of_runs, [200.0, 600.0, 400.0]);
        let latency = outcome.latency.unwrap();
        assert_eq!((latency.samples, latency.p50_ns, latency.max_ns), (3, 20, 90));
        assert_eq!(outcome.cpu, None);
        assert_eq!(Outcome::of(case, &[]), None);
    }

    #[test]
    fn processor_time_is_that_of_the_writer_and_of_the_mean_reader() {
        let worker = |messages, user_ns, system_ns| Measured {
            messages,
            cpu: CpuTime { user_ns, system_ns },
            ..Measured::default()
        };
        let cpu = Cpu::of(&[worker(10, 100, 20), worker(10, 200, 0), worker(10, 400, 40)]).unwrap();
        assert_eq!((cpu.writer.user_ns, cpu.writer.system_ns, cpu.writer.ns()), (10.0, 2.0, 12.0));
        assert_eq!((cpu.reader.user_ns, cpu.reader.system_ns), (30.0, 2.0));
        assert_eq!(Cpu::of(&[worker(10, 100, 20)]), None, "there is no reader");
        assert_eq!(Cpu::of(&[]), None);
        let twice = Cpu { writer: Spent { user_ns: 20.0, system_ns: 4.0 }, ..cpu };
        assert_eq!(Cpu::median(&[cpu, twice]).unwrap().writer, Spent { user_ns: 15.0, system_ns: 3.0 });
    }
}
