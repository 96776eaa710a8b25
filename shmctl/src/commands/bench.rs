//! `shmctl bench`: throughput and latency on this host, beside a pipe, a Unix socket and the least that two processes need.
//!
//! The library `shm-bench` measures; here are the command line and the tables.

mod args;
mod progress;
mod report;

use std::collections::BTreeSet;

use shm_bench::daemon::Stage;
use shm_bench::measure::{self, Settings};
use shm_bench::plan::{self, Case};
use shm_bench::stop::Stop;

pub(crate) use self::args::Args;
use self::progress::Progress;
use self::report::{Dated, Report, Told};
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::output::{print, print_json};
use crate::signals::Signals;
use crate::terminal::stdout_columns;

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let (wish, settings, runs) = (args.wish()?, args.settings()?, args.runs());
    let signals = Signals::catch()?;
    let host = Dated::now();
    let mut cases = plan::cases(&wish);
    let channel = global.channel.as_ref().filter(|_| global.is_given);
    let stage = match channel {
        Some(channel) => Stage::running(&global.endpoint(), channel),
        None => Stage::private(&cases),
    };
    let stage = stage.map_err(Failure::of_bench)?;
    let mut skipped = Vec::new();
    cases.retain(|case| {
        let obstacle = measure::obstacle(&stage, case);
        skipped.extend(obstacle.clone());
        obstacle.is_none()
    });
    warn_of_few_processors(&cases, &settings);
    let mut progress = Progress::new(cases.len() * runs as usize);
    let step = |case: &Case| progress.step(&case.to_string());
    let measured = measure::all(&stage, &cases, runs, &settings, Stop::when_readable(&signals), step);
    drop(progress);
    let (results, complete) = measured.map_err(Failure::of_bench)?;
    // The private daemon has ended before the report is read.
    drop(stage);
    let settings = Told::new(&settings, runs, channel.map(ToString::to_string));
    let report = Report { program: "shmctl bench", host, settings, results, skipped, complete };
    if args.json { print_json(&report) } else { print(&report.render(stdout_columns())) }
}

fn warn_of_few_processors(cases: &[Case], settings: &Settings) {
    let processes = cases.iter().map(Case::processes).max().unwrap_or(0);
    let cpus = settings.cpus.as_ref().unwrap_or(&settings.allowed);
    let cpus = cpus.iter().collect::<BTreeSet<_>>().len();
    if processes > cpus {
        let what = if cpus == 1 { "1 processor" } else { &format!("{cpus} processors") };
        note(&format!("{what} for up to {processes} processes: some take turns, and their figures show that"));
    }
}
