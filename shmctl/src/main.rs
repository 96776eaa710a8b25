//! `shmctl`: read, write, inspect and resize the channels of a running `shmd`.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod error;
mod global;
mod human;
mod output;
mod signals;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    start_log(args.global.verbose);
    let named_channel = args.global.channel.is_some();
    match args.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(named_channel);
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
