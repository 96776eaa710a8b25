//! `shm-bench ratios`: whether a channel is as much faster than a pipe, and as close to the least that two processes need, as
//! it has to be. For CI.
//!
//! All carriers are measured in the same seconds on the same processors, so ratios can be compared where times cannot. The
//! margins are wide: a ratio that does not hold means that something is broken, not that the machine is busy.

use std::time::Duration;

use shm_bench::daemon::Stage;
use shm_bench::measure::{self, Settings};
use shm_bench::outcome::Outcome;
use shm_bench::plan::{self, Fill, Measure, Wait, Wish};
use shm_bench::stop::Stop;
use shm_bench::{Failure, Result};
use shm_proto::Bytes;

/// What is compared of shmd and of another carrier.
#[derive(Clone, Copy)]
enum Figure {
    /// Throughput for a size and a batch: that of shmd is at least this many times the other's.
    AtLeast(f64, u64, u32),
    /// Median latency for a kind of reader: that of shmd is at most this many times the other's.
    AtMost(f64, Wait),
}

use Figure::{AtLeast, AtMost};

/// The comments say what was measured on two processors of a virtual machine.
const RATIOS: [(Figure, &str); 8] = [
    (AtLeast(3.0, 64, 1), "pipe"),                // 40 to 60
    (AtLeast(3.0, 64, 1), "socket"),              // 35 to 80
    (AtLeast(0.1, 64, 64), "slots"),              // 0.6 to 1
    (AtLeast(1.5, 65_536, 1), "pipe"),            // 14
    (AtLeast(0.1, 65_536, 1), "slots"),           // 0.7
    (AtMost(4.0, Wait::Busy), "two cache lines"), // 1.3
    (AtMost(1.0, Wait::Busy), "socket"),          // 0.1
    (AtMost(4.0, Wait::Sleep), "semaphore"),      // 1.1
];

pub(crate) fn run(stop: Stop<'_>) -> Result<()> {
    let settings = Settings::of(Duration::from_millis(30));
    if settings.allowed.len() < 2 {
        println!("ratios: not compared, because two processes take turns on 1 processor");
        return Ok(());
    }
    let cases = plan::cases(&Wish {
        measures: vec![Measure::Throughput, Measure::Latency],
        sizes: vec![64, 64 * Bytes::KIB],
        readers: vec![1],
        batches: vec![1, 64],
        fill: Fill::Copy,
        waits: vec![Wait::Busy, Wait::Sleep],
        latency_size: 64,
        capacity: None,
        compare: true,
    });
    let stage = Stage::private(&cases)?;
    let (results, complete) = measure::all(&stage, &cases, 5, &settings, stop, |case| crate::step(case))?;
    if !complete {
        return Err(Failure::Stopped);
    }
    let mut failed = 0;
    for (figure, other) in RATIOS {
        failed += usize::from(!holds(&results, figure, other)?);
    }
    if failed > 0 {
        let all = RATIOS.len();
        return Err(Failure::Other(format!("{failed} of {all} ratios do not hold; `shmctl bench` shows all figures")));
    }
    Ok(())
}

fn holds(results: &[Outcome], figure: Figure, other: &str) -> Result<bool> {
    let (ours, theirs) = (value(results, figure, "shmd")?, value(results, figure, other)?);
    let ratio = ours / theirs;
    let (what, limit, holds) = match figure {
        AtLeast(limit, size, batch) => {
            (format!("messages/s of {size} bytes in batches of {batch}"), format!("at least {limit}"), ratio >= limit)
        }
        AtMost(limit, wait) => {
            (format!("ns one way, median, {wait:?} reader"), format!("at most {limit}"), ratio <= limit)
        }
    };
    let verdict = if holds { "" } else { ": DOES NOT HOLD" };
    println!("{what}: shmd {ours:.0}, {other} {theirs:.0}, ratio {ratio:.2}, {limit}{verdict}");
    Ok(holds)
}

fn value(results: &[Outcome], figure: Figure, carrier: &str) -> Result<f64> {
    let found = results.iter().filter(|outcome| outcome.carrier == carrier).find_map(|outcome| match figure {
        AtLeast(_, size, batch) => {
            let case = (outcome.case.measure, outcome.case.size_bytes, outcome.case.batch);
            (case == (Measure::Throughput, size, batch)).then_some(outcome.messages_per_s)
        }
        AtMost(_, wait) => outcome.latency.filter(|_| outcome.case.wait == wait).map(|latency| latency.p50_ns as f64),
    });
    found.ok_or_else(|| Failure::Other(format!("there is no such figure of {carrier}")))
}
