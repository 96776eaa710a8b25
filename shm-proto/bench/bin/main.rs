//! `shm-bench`: measurements for developers of the ring. PERFORMANCE.md says which command makes which table.

mod page;
#[cfg(feature = "peers")]
mod peers;
mod ratios;
mod svg;
mod sweep;

use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use shm_bench::stop::Stop;
use shm_bench::{Failure, Result, worker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// Measures what the ring costs. Needs `shmd` and `shmctl` beside this program: `cargo build --release` makes both.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sweep(sweep::Args),
    #[cfg(feature = "peers")]
    Peers(peers::Args),
    /// Check that the ring is as much faster than a pipe, and as close to the limits, as it must be.
    Ratios,
    #[command(hide = true)]
    BenchWorker(worker::Args),
}

fn main() -> ExitCode {
    match run(&Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("shm-bench: error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    if let Command::BenchWorker(args) = command {
        return worker::run(args);
    }
    let signals = signals().map_err(|e| Failure::Other(format!("cannot catch SIGINT and SIGTERM: {e}")))?;
    let stop = Stop::when_readable(&signals);
    let done = match command {
        Command::Sweep(args) => sweep::run(args, stop),
        #[cfg(feature = "peers")]
        Command::Peers(args) => peers::run(args, stop),
        Command::Ratios => ratios::run(stop),
        Command::BenchWorker(_) => Ok(()),
    };
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    done
}

/// Readable once SIGINT or SIGTERM has come. The second signal ends the process at once.
fn signals() -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    let came = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&came))?;
        flag::register(signal, Arc::clone(&came))?;
        low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Shows on a terminal what is measured now.
fn step(what: &dyn Display) {
    if stderr().is_terminal() {
        eprint!("\r{what}\x1b[K");
    }
}
