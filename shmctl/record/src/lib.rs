//! Two commands of `shmctl`, which finds them as programs: `shmctl record` writes the messages of channels to MCAP files, and
//! `shmctl replay` publishes them again.
//!
//! ```text
//! record:  followers -> receiver -> chunk -> [packing threads] -> writing thread -> files
//! replay:  files -> reading thread -> batches -> schedule -> writers
//! ```
//!
//! | module | knows |
//! |---|---|
//! | `format/` | MCAP: records, chunks and their compression, the end of a file, reading it back |
//! | `record/` | recording, and repairing a recording that was interrupted |
//! | `replay/` | publishing what was recorded |
//!
//! The crate `mcap` says what the records look like, and orders messages for replay. Its writer is not used: a chunk that fits no
//! longer on the disk could not be taken back, chunks could not be compressed side by side, and messages would have to be copied
//! once more on their way from shared memory.
#![forbid(unsafe_code)]

mod format;
mod record;
mod replay;

use std::process::ExitCode;

use clap::Parser;
use clap::parser::ValueSource;
use shmctl::companion::{Global, Result, finish, start_log};

/// The program `shmctl-record`: reads the command line, records, and gives the exit code.
#[must_use]
pub fn record() -> ExitCode {
    main(|args: &mut record::Args| &mut args.global, record::run)
}

/// The program `shmctl-replay`: reads the command line, publishes, and gives the exit code.
#[must_use]
pub fn replay() -> ExitCode {
    main(|args: &mut replay::Args| &mut args.global, replay::run)
}

fn main<A: Parser>(global: impl Fn(&mut A) -> &mut Global, run: impl FnOnce(A) -> Result<()>) -> ExitCode {
    let matches = A::command().get_matches();
    let mut args = A::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let options = global(&mut args);
    options.is_given = matches.value_source("channel") == Some(ValueSource::CommandLine);
    start_log(options.verbose);
    let named: Vec<_> = options.channel.iter().cloned().collect();
    finish(run(args), &named)
}
