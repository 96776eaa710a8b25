//! What the programs that `shmctl` finds beside itself share with it: the options of every command, how they report, and how
//! they end.
//!
//! `shmctl` asks its own project's programs for their manual page and for completions, in their first argument.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
pub use shm_cli::nearest;
use shm_cli::without_empty_variables;
use shm_proto::ChannelName;

pub use crate::commands::metrics::{exposition, textfile};
use crate::commands::{complete, manual};
pub use crate::error::{Failure, Result, note};
pub use crate::exit_code::{FAILED, NOT_PERMITTED, USAGE, WOULD_BLOCK};
pub use crate::global::{Global, check_variables};
pub use crate::human;
pub use crate::output::{has_news, wait_for};
use crate::programs::{COMPLETE, MANUAL, PREFIX};
pub use crate::signals::Signals;
pub use crate::target::Target;
pub use crate::terminal::{Size, shortened, size};

/// The whole program of a command: reads the command line, carries the command out, and gives the exit code.
#[must_use]
pub fn main<A: Parser>(global: impl Fn(&mut A) -> &mut Global, run: impl FnOnce(A) -> Result<()>) -> ExitCode {
    if let Some(answered) = answer(command::<A>) {
        return answered;
    }
    let mut args = parse(&global);
    let options = global(&mut args);
    start_log(options.verbose);
    let named = options.channels().to_vec();
    finish(check_variables().and_then(|()| run(args)), &named)
}

/// Reads the command line; a wrong one ends the program. For a program that does the other steps of [`main`] in its own way.
#[must_use]
pub fn parse<A: Parser>(global: impl Fn(&mut A) -> &mut Global) -> A {
    let matches = without_empty_variables(A::command()).get_matches();
    let mut args = A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    global(&mut args).take_options(&matches);
    args
}

/// Answers `shmctl` if that has started the program to ask for its manual page or for completions, and gives the exit code.
#[must_use]
pub fn answer(command: impl FnOnce() -> clap::Command) -> Option<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let answered = match words.get(1)?.to_str()? {
        MANUAL => manual::print_page(command()),
        COMPLETE => complete::print_words(&words[2..], command()),
        _ => return None,
    };
    Some(finish(answered, &[]))
}

/// A program's command line as that of a command of `shmctl`.
#[must_use]
pub fn command<A: Parser>() -> clap::Command {
    let mut command = A::command();
    command.build();
    let name = command.get_name().trim_start_matches(PREFIX).to_owned();
    // clap takes names that live as long as the program, which does this once.
    command.name(&*name.leak())
}

/// Reports a failure, and gives the exit code. `channels`: those that the command is about.
#[must_use]
pub fn finish(result: Result<()>, channels: &[ChannelName]) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(channels);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Logs to standard error; `verbose` is how often `-v` was given.
pub fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new().filter_level(level).format_target(false).init();
}
