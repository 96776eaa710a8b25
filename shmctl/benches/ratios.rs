//! Whether a channel is as much faster than a pipe, and as close to the least that two processes need, as it has to be:
//! `cargo build --release && cargo bench -p shmctl --bench ratios`.
//!
//! `shmctl bench --quick` measures everything in the same seconds on the same processors, so ratios can be compared where
//! times cannot. The margins are wide: what fails here is broken, not slow because of a busy machine.

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is compared of shmd and of another carrier.
#[derive(Clone, Copy)]
enum Figure {
    /// Throughput with messages of so many bytes, so many together: shmd has at least so many times the other's.
    AtLeast(f64, u64, u64),
    /// Median latency when the reader waits like this: shmd has at most so many times the other's.
    AtMost(f64, &'static str),
}

use Figure::{AtLeast, AtMost};

/// In the comments what it was on two processors of a virtual machine.
const RATIOS: [(Figure, &str); 8] = [
    (AtLeast(3.0, 64, 1), "pipe"),            // 40 to 60
    (AtLeast(3.0, 64, 1), "socket"),          // 35 to 80
    (AtLeast(0.1, 64, 64), "slots"),          // 0.6 to 1
    (AtLeast(1.5, 65_536, 1), "pipe"),        // 14
    (AtLeast(0.1, 65_536, 1), "slots"),       // 0.7
    (AtMost(4.0, "busy"), "two cache lines"), // 1.3
    (AtMost(1.0, "busy"), "socket"),          // 0.1
    (AtMost(4.0, "sleep"), "semaphore"),      // 1.1
];

fn main() -> Result<ExitCode> {
    let shmctl = Path::new(env!("CARGO_BIN_EXE_shmctl"));
    let shmd = shmctl.with_file_name("shmd");
    if !shmd.is_file() {
        return Err(format!("{} is missing: `cargo build --release` makes both programs", shmd.display()).into());
    }
    let args = "bench --quick --json --runs 5 --duration 30ms --readers 1 --measure throughput,latency";
    let output = Command::new(shmctl).args(args.split(' ')).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("shmctl {args} ended with {}: {said}", output.status).into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let cpus = report["host"]["cpus"].as_array().map_or(0, Vec::len);
    if cpus < 2 {
        println!("ratios: not compared, because two processes take turns on {cpus} processor");
        return Ok(ExitCode::SUCCESS);
    }
    let results = report["results"].as_array().ok_or("the report has no results")?;
    let mut failed = 0;
    for (figure, other) in RATIOS {
        failed += usize::from(!holds(results, figure, other)?);
    }
    if failed > 0 {
        println!("{failed} of {} ratios do not hold; `shmctl bench` shows all figures", RATIOS.len());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn holds(results: &[Value], figure: Figure, other: &str) -> Result<bool> {
    let (ours, theirs) = (value(results, figure, "shmd")?, value(results, figure, other)?);
    let ratio = ours / theirs;
    let (what, limit, holds) = match figure {
        AtLeast(limit, size, batch) => {
            (format!("messages/s of {size} bytes in batches of {batch}"), format!("at least {limit}"), ratio >= limit)
        }
        AtMost(limit, wait) => {
            (format!("ns one way, median, --wait {wait}"), format!("at most {limit}"), ratio <= limit)
        }
    };
    let verdict = if holds { "" } else { ": DOES NOT HOLD" };
    println!("{what}: shmd {ours:.0}, {other} {theirs:.0}, ratio {ratio:.2}, {limit}{verdict}");
    Ok(holds)
}

fn value(results: &[Value], figure: Figure, carrier: &str) -> Result<f64> {
    let found = results.iter().filter(|result| result["carrier"] == carrier).find_map(|result| match figure {
        AtLeast(_, size, batch) => {
            (result["measure"] == "throughput" && result["size_bytes"] == size && result["batch"] == batch)
                .then(|| result["messages_per_s"].as_f64())
        }
        AtMost(_, wait) => {
            (result["measure"] == "latency" && result["wait"] == wait).then(|| result["latency"]["p50_ns"].as_f64())
        }
    });
    found.flatten().ok_or_else(|| format!("the report has no such figure of {carrier}").into())
}
