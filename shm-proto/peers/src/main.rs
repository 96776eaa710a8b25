//! shm-proto, iceoryx2, ringfire and a pipe: the same work in the same run. See README.md for what is compared and how.

mod case;
mod crew;
mod daemon;
mod flow;
mod library;
mod report;
mod worker;

use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::case::{Library, cases};
use self::crew::Stage;
use self::report::Report;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Compare shm-proto with other libraries: throughput and latency between processes, every byte written and read.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    worker: Option<Worker>,
    /// The daemon, built with `cargo build --release` [default: ../../target/release/shmd of this package]
    #[arg(long, value_name = "PATH")]
    shmd: Option<PathBuf>,
    /// Only these.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Library::ALL)]
    libraries: Vec<Library>,
    /// Runs of each case; the median counts.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How long each run takes, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Memory for messages on their way, in KiB: a power of two.
    #[arg(long, value_name = "KIB", default_value_t = 1024, value_parser = capacity)]
    capacity: usize,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Worker {
    /// One process of a run; started by this program.
    #[command(hide = true)]
    Worker { job: String },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Worker::Worker { job }) = &args.worker {
        return worker::run(&serde_json::from_str(job)?);
    }
    // Nothing is to be left behind: a run that has begun ends, and everything is removed.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&stop))?;
    }
    let stage = Stage::new(args.shmd.clone())?;
    let cases = cases(args.capacity << 10);
    let mut report = Report::new(args.runs, args.duration, args.capacity, &args.libraries, &cases);
    let shown = std::io::stderr().is_terminal();
    let steps = args.runs as usize * cases.len();
    for (step, case) in (0..args.runs).flat_map(|_| &cases).enumerate() {
        if shown {
            eprint!("\r[{:>3}/{steps}] {case}\x1b[K", step + 1);
        }
        for &library in args.libraries.iter().filter(|library| library.can(case)) {
            if stop.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            let results = stage.run(library, case, Duration::from_millis(args.duration))?;
            report.add(library, case, results);
        }
    }
    if shown {
        eprint!("\r\x1b[K");
    }
    drop(stage);
    if args.json {
        println!("{}", serde_json::to_string(&report.document())?)
    } else {
        print!("{}", report.table())
    }
    Ok(())
}

/// At least 16 of the largest messages.
fn capacity(text: &str) -> std::result::Result<usize, String> {
    match text.parse::<usize>() {
        Ok(kib) if kib.is_power_of_two() && (1024..=1 << 20).contains(&kib) => Ok(kib),
        _ => Err("a power of two from 1024 (a MiB) to 1048576 (a GiB)".to_owned()),
    }
}
