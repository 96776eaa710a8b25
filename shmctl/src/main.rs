//! `shmctl`: read, write, inspect and resize the channels of a running `shmd`.
#![forbid(unsafe_code)]

mod args;
mod colour;
mod commands;
mod condition;
mod error;
mod exit_code;
mod global;
mod human;
mod keyboard;
mod output;
mod readers;
mod signals;
#[cfg(test)]
mod surface;
mod table;
mod target;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = args::Args::from_line(std::env::args_os()).unwrap_or_else(|error| error.exit());
    start_log(args.global.verbose);
    let settled = args.settle();
    let channels = args.channels();
    match settled.and_then(|()| args.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(&channels);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new().filter_level(level).format_target(false).init();
}
