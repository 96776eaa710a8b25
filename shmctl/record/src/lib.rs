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
//! The crate `mcap` says what the records look like. Its writer is not used: a chunk that fits no longer on the disk could not be taken
//! back, chunks could not be compressed side by side, and messages would have to be copied once more on their way from shared memory.
//! Nor is its reader: nobody could say how much memory it takes for chunks whose times overlap.
#![forbid(unsafe_code)]

mod format;
mod record;
mod replay;

use std::process::ExitCode;

use shmctl::companion::{command, main};

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

/// The command lines, as commands of `shmctl`, for what is written about them.
#[must_use]
pub fn commands() -> [clap::Command; 2] {
    [command::<record::Args>(), command::<replay::Args>()]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_lines_are_consistent_and_their_examples_fit_a_line_of_the_help() {
        for command in super::commands() {
            let name = command.get_name().to_owned();
            command.clone().debug_assert();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1).collect();
            let is_one = |line: &&str| line.starts_with(&format!("  shmctl {name} ")) && line.chars().count() <= 98;
            assert!(examples.iter().filter(|line| is_one(line)).count() > 4, "{name}: {examples:?}");
            assert!(examples.iter().all(|line| line.chars().count() <= 98), "{name}: {examples:?}");
        }
    }
}
