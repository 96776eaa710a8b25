//! `shm-bench peers`: other libraries with the same work in the same run. README.md says how.

mod rates;
mod rows;
mod tables;

use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::json;
use shm_bench::daemon::Stage;
use shm_bench::host::Host;
use shm_bench::measure::{self, Settings};
use shm_bench::stop::Stop;
use shm_bench::{Failure, Result};

use self::rows::{PEERS, Peer, Row};

/// Compare the ring with other libraries: throughput, latency, processor time and the highest rate within 10 us, between
/// processes, every byte written and read.
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
    /// Measure only rows whose name contains WORD, such as 64B, latency, batches or rate. May be repeated.
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Measure only these, separated by commas: shmd, iceoryx2, ringfire, crossbar, zeromq, socket, pipe.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = rows::peer)]
    carriers: Vec<&'static Peer>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Rates to try for each share of the messages.
const STEPS: u32 = 8;
const STEPS_IN_SHORT: u32 = 4;

pub(crate) fn run(args: &Args, stop: Stop<'_>) -> Result<()> {
    let (runs, duration, steps) = if args.quick { (1, 20, STEPS_IN_SHORT) } else { (args.runs, args.duration, STEPS) };
    let peers: Vec<&Peer> =
        PEERS.iter().filter(|peer| args.carriers.is_empty() || args.carriers.contains(peer)).collect();
    let rows: Vec<Row> = rows::all().into_iter().filter(|row| row.is_named(&args.only)).collect();
    if rows.is_empty() {
        let names: Vec<String> = rows::all().iter().map(|row| row.name.clone()).collect();
        return Err(Failure::Other(format!(
            "no row has {} in its name; the rows are: {}",
            args.only.join(" or "),
            names.join("; ")
        )));
    }
    let host = Host::look();
    let stage = Stage::private(&rows.iter().map(|row| row.case).collect::<Vec<_>>())?;
    let settings = Settings::of(Duration::from_millis(duration));
    let cases = rows::cases(&rows, &peers);
    let (results, complete) = measure::all(&stage, &cases, runs, &settings, stop, |case| crate::step(case))?;
    if !complete {
        return Err(Failure::Stopped);
    }
    let rates = rates::all(&stage, &rows, &peers, &results, steps, &settings, stop)?;
    drop(stage);
    if args.json {
        let document = json!({
            "host": host, "runs": runs, "duration_ms": duration, "results": results,
            "rate_limit_ns": rates::LIMIT_NS, "rates": rates,
        });
        println!("{document}");
        return Ok(());
    }
    print!("{}", host.describe());
    for page in tables::all(&rows, &peers, &results, &rates, runs, duration) {
        print!("{}", page.markdown());
    }
    Ok(())
}
