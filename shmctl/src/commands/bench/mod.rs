//! `shmctl bench`: throughput and latency on this host, beside a pipe, a Unix socket and the least that two processes need.

mod args;
mod crew;
mod host;
mod measure;
mod outcome;
mod pipeline;
mod plan;
mod progress;
mod report;
mod stage;
mod sweep;
pub(crate) mod worker;

use std::collections::BTreeSet;
use std::env;

pub(crate) use self::args::Args;
use self::args::Sub;
use self::host::Host;
use self::measure::Settings;
use self::outcome::{Outcome, Sample};
use self::plan::{Case, Measure, Transport};
use self::progress::Progress;
use self::report::{Report, Told};
use self::stage::Stage;
use crate::args::Global;
use crate::error::{Result, note};
use crate::output::{print, print_json};
use crate::signals::Signals;
use crate::terminal::stdout_columns;

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    if let Some(Sub::Sweep(args)) = &args.sweep {
        return sweep::run(args);
    }
    let (wish, settings, runs) = (args.wish()?, args.settings()?, args.runs());
    let signals = Signals::catch()?;
    let host = Host::look();
    let mut cases = plan::cases(&wish);
    let channel = global.channel.as_ref().filter(|_| args::names_channel(env::args()));
    let stage = match channel {
        Some(channel) => Stage::running(global, channel)?,
        None => Stage::private(&capacities(&cases), capacity_of_answers(&cases))?,
    };
    let mut skipped = Vec::new();
    cases.retain(|case| {
        let obstacle = measure::obstacle(&stage, case);
        skipped.extend(obstacle.clone());
        obstacle.is_none()
    });
    warn_of_few_processors(&cases, &settings);
    let samples = measure_all(&stage, &cases, runs, &settings, &signals)?;
    let complete = samples.iter().all(|runs_of_case| runs_of_case.len() == runs as usize);
    let results = cases.iter().zip(&samples).filter_map(|(case, samples)| Outcome::of(*case, samples)).collect();
    // The daemon is gone before anybody reads of it.
    drop(stage);
    let settings = Told::new(&settings, runs, channel.map(ToString::to_string));
    let report = Report { program: "shmctl bench", host, settings, results, skipped, complete };
    if args.json { print_json(&report) } else { print(&report.render(stdout_columns())) }
}

/// Measures every case `runs` times, all of them in turn, so that noise hits all alike; fewer when a signal comes.
fn measure_all(
    stage: &Stage,
    cases: &[Case],
    runs: u32,
    settings: &Settings,
    signals: &Signals,
) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); cases.len()];
    let mut progress = Progress::new(cases.len() * runs as usize);
    for _ in 0..runs {
        for (case, samples_of_case) in cases.iter().zip(&mut samples) {
            progress.step(&case.to_string());
            match measure::run(stage, case, settings, signals) {
                Ok(Some(sample)) => samples_of_case.push(sample),
                Ok(None) => return Ok(samples),
                // Whatever fails once a signal has come may fail because of it.
                Err(_) if signals.came() => return Ok(samples),
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok(samples)
}

/// The capacities of the channels that the cases need.
fn capacities(cases: &[Case]) -> Vec<u64> {
    let rings = cases.iter().filter(|case| case.transport == Transport::Ring && case.measure != Measure::Pipeline);
    rings.map(|case| case.capacity_bytes).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The capacity of the channel that the reader of a round trip answers on.
fn capacity_of_answers(cases: &[Case]) -> Option<u64> {
    let latency = |case: &&Case| case.transport == Transport::Ring && case.measure == Measure::Latency;
    cases.iter().find(latency).map(|case| case.capacity_bytes)
}

fn warn_of_few_processors(cases: &[Case], settings: &Settings) {
    let processes = cases.iter().map(|case| case.readers as usize + 1).max().unwrap_or(0);
    let cpus = settings.cpus.as_ref().unwrap_or(&settings.allowed);
    let cpus = cpus.iter().collect::<BTreeSet<_>>().len();
    if processes > cpus {
        let what = if cpus == 1 { "1 processor" } else { &format!("{cpus} processors") };
        note(&format!("{what} for up to {processes} processes: some take turns, and their figures show that"));
    }
}
