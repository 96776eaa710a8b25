//! The command line as a whole; each command's own arguments are with the command.

use clap::{Parser, Subcommand};

use crate::commands::{bench, evict, list, log, read, reexec, reload, resize, stat, write};
use crate::error::{Failure, Result};
use crate::global::Global;

const EXIT_CODES: &str = "\
Exit codes:
  0   done; also when the output was closed, and when SIGINT or SIGTERM ended read, write, stat --watch, log --follow or
      bench
  1   failed: the message states the reason
  2   wrong usage, on the command line or in SHMD_CHANNEL
  3   reloaded, but some keys were not changed
  69  no daemon answers
  75  timed out, or the command would have to wait
  77  not permitted
  78  the daemon refuses its configuration";

/// Reads, writes, inspects and resizes the channels of a running shmd.
///
/// Data goes to standard output, messages for people to standard error. A channel name is needed only if there are several.
#[derive(Debug, Parser)]
#[command(name = "shmctl", version, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Carries out the command.
    pub(crate) fn run(self) -> Result<()> {
        let global = self.global;
        match self.command {
            Command::Read(args) => read::run(args, &global),
            Command::Write(args) => write::run(args, &global),
            Command::Stat(args) => stat::run(&args, &global),
            Command::List(args) => list::run(&args, &global),
            Command::Resize(args) => resize::run(&args, &global),
            Command::Evict(args) => evict::run(&args, &global),
            Command::Reload(args) => reload::run(&args, &global),
            Command::Reexec(args) => reexec::run(&args, &global),
            Command::Log(args) => log::run(&args, &global),
            Command::Bench(args) => bench::run(&args, &global),
            Command::BenchWorker(args) => shm_bench::worker::run(&args).map_err(Failure::of_bench),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Read(read::Args),
    Write(write::Args),
    Stat(stat::Args),
    List(list::Args),
    Resize(resize::Args),
    Evict(evict::Args),
    Reload(reload::Args),
    Reexec(reexec::Args),
    Log(log::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    BenchWorker(shm_bench::worker::Args),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> std::result::Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_before_and_after_the_command() {
        for line in ["shmctl -c cam --runtime-dir /x -v list", "shmctl list -v --channel cam --runtime-dir=/x"] {
            let args = parse(line).unwrap();
            assert_eq!(args.global.channel.unwrap().as_str(), "cam", "{line}");
            assert_eq!(args.global.runtime_dir.unwrap().to_str(), Some("/x"), "{line}");
            assert_eq!(args.global.verbose, 1, "{line}");
        }
    }

    #[test]
    fn wrong_values_are_usage_errors_that_repeat_the_input_and_the_accepted_form() {
        for (line, shown) in [
            ("shmctl resize --bytes 1TiB", "64KiB"),
            ("shmctl read --timeout soon", "500ms"),
            ("shmctl write --framing line", "chunk=64KiB"),
            ("shmctl list --channel a/b", "A-Z"),
            ("shmctl read --format xml", "json"),
            ("shmctl stat --watch=never", "never"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            let text = error.to_string();
            assert!(text.contains(shown), "{line}: {text}");
        }
    }

    #[test]
    fn a_command_is_needed_and_help_is_no_error() {
        assert_eq!(parse("shmctl").unwrap_err().exit_code(), 2);
        for command in ["read", "write", "stat", "list", "resize", "evict", "reload", "reexec", "log", "bench"] {
            let help = parse(&format!("shmctl {command} --help")).unwrap_err();
            assert_eq!(help.kind(), ErrorKind::DisplayHelp);
            assert!(help.to_string().contains("Example"), "{help}");
        }
    }
}
