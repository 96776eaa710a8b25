//! `shmctl-relay`: carries a channel of shmd to other hosts, and back, through NATS JetStream.
#![forbid(unsafe_code)]

mod args;
mod backoff;
mod envelope;
mod failure;
mod inward;
mod link;
mod out;
mod status;
mod stop;
mod stream;

use std::process::ExitCode;

use shmctl::companion::{self, Failure, Result};

use crate::args::{Args, Command};
pub use crate::failure::CODES as EXIT_CODES;
use crate::failure::explained;

/// The whole program: reads the command line, carries messages until it is stopped, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(answered) = companion::answer(command) {
        return answered;
    }
    let mut args = companion::parse(|args: &mut Args| &mut args.global);
    start_log(args.global.verbose);
    let settled = companion::check_variables().and_then(|()| args.settle());
    let named: Vec<_> = args.global.channel.iter().cloned().collect();
    let result = settled.and_then(|()| run(args));
    companion::finish(result.map_err(|failure| explained(failure, !named.is_empty())), &named)
}

/// The command line, as a command of `shmctl`, for what is written about it.
#[must_use]
pub fn command() -> clap::Command {
    companion::command::<Args>()
}

fn run(args: Args) -> Result<()> {
    let failed = |e: std::io::Error| Failure::Other(format!("cannot start the runtime: {e}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (global, metrics) = (args.global, args.metrics.as_deref());
    let result = runtime.block_on(async {
        match args.command {
            Command::Out(command) => out::run(command, &global, metrics).await,
            Command::In(command) => inward::run(command, &global, metrics).await,
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
