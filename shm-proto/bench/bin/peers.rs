//! `shm-bench peers`: iceoryx2, ringfire and a pipe with the same work in the same run. README.md says how.

use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::json;
use shm_bench::daemon::Stage;
use shm_bench::figures::{gigabytes, short, time};
use shm_bench::host::Host;
use shm_bench::measure::{self, Settings};
use shm_bench::outcome::Outcome;
use shm_bench::plan::{Case, LATENCY_CAPACITY, Measure, Transport, Wait};
use shm_bench::stop::Stop;
use shm_bench::{Failure, Result};
use shm_proto::Bytes;

use crate::page::Page;

/// Compare the ring with other libraries: throughput and latency between processes, every byte written and read.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Runs of each case; the median counts.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// The duration of each run, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// One short run of each case: shows whether the comparison works.
    #[arg(long, conflicts_with_all = ["runs", "duration"])]
    quick: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

const CARRIERS: [Transport; 4] = [Transport::Ring, Transport::Iceoryx2, Transport::Ringfire, Transport::Pipe];

/// Every case for every carrier that supports it. Cases of the same work follow each other.
fn cases() -> Vec<Case> {
    let throughput = |size, readers, batch| {
        let case = Case::new(Measure::Throughput, Transport::Ring, size, Bytes::MIB);
        Case { readers, batch, ..case }
    };
    let latency = |wait| Case { wait, ..Case::new(Measure::Latency, Transport::Ring, 64, LATENCY_CAPACITY) };
    let rows = [
        throughput(64, 1, 1),
        throughput(64, 1, 64),
        throughput(Bytes::KIB, 1, 1),
        throughput(Bytes::KIB, 1, 64),
        throughput(64 * Bytes::KIB, 1, 1),
        throughput(Bytes::KIB, 4, 1),
        latency(Wait::Busy),
        latency(Wait::Sleep),
    ];
    // iceoryx2 sends samples one by one.
    let can = |case: &Case| case.transport != Transport::Iceoryx2 || case.batch == 1;
    rows.iter().flat_map(|row| CARRIERS.map(|transport| Case { transport, ..*row })).filter(can).collect()
}

pub(crate) fn run(args: &Args, stop: Stop<'_>) -> Result<()> {
    let (runs, duration) = if args.quick { (1, 20) } else { (args.runs, args.duration) };
    let (host, cases) = (Host::look(), cases());
    let stage = Stage::private(&cases)?;
    let settings = Settings::of(Duration::from_millis(duration));
    let (results, complete) = measure::all(&stage, &cases, runs, &settings, stop, |case| crate::step(case))?;
    drop(stage);
    if !complete {
        return Err(Failure::Stopped);
    }
    if args.json {
        println!("{}", json!({ "host": host, "runs": runs, "duration_ms": duration, "results": results }));
    } else {
        print!("{}{}", host.describe(), page(&results, runs, duration).markdown());
    }
    Ok(())
}

fn page(results: &[Outcome], runs: u32, duration: u64) -> Page {
    let mut page = Page {
        title: "Other libraries",
        method: format!(
            "{runs} runs of {duration} ms, medians; 1 MiB for messages on their way, 256 KiB for latency. Throughput is what the \
             slowest reader received; latency is median and 99th percentile, one way."
        ),
        columns: vec!["work", "shmd", "iceoryx2", "ringfire", "pipe"],
        ..Page::default()
    };
    for row in results.iter().filter(|outcome| outcome.case.transport == Transport::Ring) {
        let cell = |transport| {
            let found = results.iter().find(|o| o.case.transport == transport && o.case.is_row_of(&row.case));
            found.map_or_else(|| "-".to_owned(), figure)
        };
        page.rows.push([vec![work(&row.case)], CARRIERS.map(cell).to_vec()].concat());
    }
    page
}

fn work(case: &Case) -> String {
    let size = Bytes(case.size_bytes);
    match (case.measure, case.wait) {
        (Measure::Latency, Wait::Busy) => format!("{size}, busy reader"),
        (Measure::Latency, Wait::Sleep) => format!("{size}, sleeping reader"),
        _ if case.batch > 1 => format!("{size}, {} reader, batches of {}", case.readers, case.batch),
        _ => format!("{size}, {} reader{}, one by one", case.readers, if case.readers == 1 { "" } else { "s" }),
    }
}

/// Large messages in bytes, small ones in messages.
fn figure(outcome: &Outcome) -> String {
    match outcome.latency {
        Some(latency) => format!("{} / {}", time(latency.p50_ns), time(latency.p99_ns)),
        None if outcome.case.size_bytes >= 64 * Bytes::KIB => gigabytes(outcome.bytes_per_s),
        None => format!("{}/s", short(outcome.messages_per_s)),
    }
}
