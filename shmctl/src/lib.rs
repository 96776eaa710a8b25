//! The command line: reads, writes, inspects and resizes the channels of a running `shmd`. The program `shmctl` is [`main`] alone.
//! [`companion`] is for the programs that `shmctl` finds beside itself, such as `shmctl-record`. Nothing in here is kept from one
//! version to the next.
#![forbid(unsafe_code)]

mod args;
mod colour;
mod commands;
#[doc(hidden)]
pub mod companion;
mod condition;
mod error;
mod exit_code;
mod global;
#[doc(hidden)]
pub mod human;
mod keyboard;
mod output;
mod programs;
mod readers;
mod signals;
#[cfg(test)]
mod surface;
mod table;
mod target;
mod terminal;

use std::process::ExitCode;

/// The whole program: reads the command line, carries out the command, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(asked) = programs::asked_for(&words, args::Args::is_command) {
        return companion::finish(asked.run(), &[]);
    }
    let mut args = args::Args::from_line(words).unwrap_or_else(|error| error.exit());
    companion::start_log(args.global.verbose);
    let settled = args.settle();
    let channels = args.channels();
    companion::finish(settled.and_then(|()| args.run()), &channels)
}
