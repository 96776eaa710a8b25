//! The daemon: owns shared-memory channels, feeds and resizes them, and cleans up.
#![forbid(unsafe_code)]

mod access;
mod args;
mod bridge;
mod channel;
mod config;
mod daemon;
mod event_loop;
mod exit;
mod host;
mod hub;
mod lease;
mod logging;
mod maintenance;
mod policy;
mod process;
mod rate_limit;
mod requests;
mod server;
mod signals;
mod sizing;
mod socket;
mod source;
mod stat;
#[cfg(test)]
mod testing;

use std::io::Write;
use std::process::ExitCode;

use exit::Failure;

fn main() -> ExitCode {
    let Err(failure) = start() else { return ExitCode::SUCCESS };
    match &failure {
        // A closed output is no reason to fail differently.
        Failure::CommandLine(e) => drop(e.print()),
        Failure::Config(config::Error::Usage(message)) => drop(args::usage(message).print()),
        other => eprintln!("shmd: {other}"),
    }
    ExitCode::from(exit::code(&failure))
}

fn start() -> Result<(), Failure> {
    let asked = args::parse(std::env::args_os())?;
    if let Some(channel) = &asked.finish_shrink {
        return Ok(maintenance::finish_shrink(channel)?);
    }
    let config = config::load(&asked.given, &host::Host::look())?;
    if asked.check {
        let text = config::show(&config);
        return std::io::stdout().write_all(text.as_bytes()).map_err(Failure::Output);
    }
    logging::start(config.log);
    daemon::run(config)
}
