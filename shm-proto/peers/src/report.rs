//! Medians, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::case::{Case, Latency, Library, Measure, Measured};

#[derive(Debug)]
pub struct Report {
    runs: u32,
    duration_ms: u64,
    capacity_kib: usize,
    libraries: Vec<Library>,
    cases: Vec<Case>,
    results: BTreeMap<(Case, Library), Vec<Measured>>,
}

impl Report {
    pub fn new(runs: u32, duration_ms: u64, capacity_kib: usize, libraries: &[Library], cases: &[Case]) -> Self {
        let (libraries, cases) = (libraries.to_vec(), cases.to_vec());
        Report { runs, duration_ms, capacity_kib, libraries, cases, results: BTreeMap::new() }
    }

    pub fn add(&mut self, library: Library, case: &Case, measured: Measured) {
        self.results.entry((*case, library)).or_default().push(measured);
    }

    fn median(&self, case: &Case, library: Library, figure: impl Fn(&Measured) -> f64) -> Option<f64> {
        let mut figures: Vec<f64> = self.results.get(&(*case, library))?.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied()
    }

    fn messages_per_s(&self, case: &Case, library: Library) -> Option<f64> {
        self.median(case, library, |one| one.messages as f64 * 1e9 / one.elapsed_ns.max(1) as f64)
    }

    fn latency(&self, case: &Case, library: Library, of: impl Fn(&Latency) -> u64) -> Option<f64> {
        self.median(case, library, |one| one.latency.as_ref().map_or(f64::NAN, |latency| of(latency) as f64))
    }

    pub fn table(&self) -> String {
        let mut out = format!(
            "{} runs of {} ms, medians; {} KiB for messages on their way\n\n{:<34}",
            self.runs, self.duration_ms, self.capacity_kib, ""
        );
        for library in &self.libraries {
            let _ = write!(out, "{library:>21}");
        }
        out.push('\n');
        for case in &self.cases {
            let _ = write!(out, "{:<34}", case.to_string());
            for &library in &self.libraries {
                let cell = match case.measure {
                    Measure::Throughput => self.messages_per_s(case, library).map(|rate| throughput(case, rate)),
                    _ => self
                        .latency(case, library, |latency| latency.p50_ns)
                        .zip(self.latency(case, library, |latency| latency.p99_ns))
                        .map(|(p50, p99)| format!("{} / {}", time(p50), time(p99))),
                };
                let _ = write!(out, "{:>21}", cell.as_deref().unwrap_or("-"));
            }
            out.push('\n');
        }
        out.push_str("\nThroughput: as the slowest reader received it. Latency, one way: median / 99th percentile.\n");
        out
    }

    pub fn document(&self) -> Value {
        let results = self.cases.iter().flat_map(|case| self.libraries.iter().map(move |&library| (case, library)));
        let results = results.filter_map(|(case, library)| {
            let mut result = json!({
                "library": library,
                "measure": case.measure,
                "size_bytes": case.size_bytes,
                "readers": case.readers,
                "batch": case.batch,
                "messages_per_s": self.messages_per_s(case, library)?,
            });
            if case.measure != Measure::Throughput {
                result["p50_ns"] = json!(self.latency(case, library, |latency| latency.p50_ns));
                result["p99_ns"] = json!(self.latency(case, library, |latency| latency.p99_ns));
            }
            Some(result)
        });
        json!({ "runs": self.runs, "duration_ms": self.duration_ms, "capacity_kib": self.capacity_kib, "results": results.collect::<Vec<_>>() })
    }
}

/// Large messages in bytes, small ones in messages.
fn throughput(case: &Case, messages_per_s: f64) -> String {
    if case.size_bytes >= 64 << 10 {
        return format!("{:.1} GB/s", messages_per_s * case.size_bytes as f64 / 1e9);
    }
    format!("{:.2} M/s", messages_per_s / 1e6)
}

fn time(ns: f64) -> String {
    if ns < 10_000.0 { format!("{ns:.0} ns") } else { format!("{:.1} us", ns / 1e3) }
}
