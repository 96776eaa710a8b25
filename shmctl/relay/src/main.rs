//! `shmctl-relay`: carries a channel of shmd to other hosts, and back, through NATS JetStream.
#![forbid(unsafe_code)]

mod args;
mod backoff;
mod envelope;
mod failure;
mod inward;
mod link;
mod notify;
mod out;
mod status;
mod stop;
mod stream;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use shm_cli::without_empty_variables;

use crate::args::{Args, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    let matches = without_empty_variables(Args::command()).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    start_log(args.global.verbose);
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("shmctl-relay: error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::Other(format!("cannot start the runtime: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let result = runtime.block_on(async {
        match args.command {
            Command::Out(command) => out::run(command, args.global).await,
            Command::In(command) => inward::run(command, args.global).await,
        }
    });
    // A thread that waits for a daemon or for readers is not waited for.
    runtime.shutdown_background();
    result
}

/// A relay is a service: it reports what happens to the link, and warnings.
fn start_log(verbose: u8) {
    let level = if verbose == 0 { log::LevelFilter::Info } else { log::LevelFilter::Debug };
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("shm", level)
        .format_target(false)
        .init();
}
