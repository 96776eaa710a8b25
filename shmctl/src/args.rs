//! The command line as a whole; each command's own arguments are with the command.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use shm_proto::ChannelName;

use crate::commands::{bench, evict, list, log, read, reload, resize, stat, write};

/// The heading of the options of every command.
const GLOBAL: &str = "Options of every command";

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

/// The options of every command, before and after its name.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// The channel. Not needed if the daemon has exactly one.
    #[arg(short, long, value_name = "NAME", env = "SHMD_CHANNEL", global = true, help_heading = GLOBAL)]
    pub(crate) channel: Option<ChannelName>,
    /// The daemon's runtime directory, where its socket is [default: the user's own daemon, else the system's].
    #[arg(long, value_name = "DIR", env = "SHMD_RUNTIME_DIR", global = true, help_heading = GLOBAL)]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// Report more on standard error; give it twice for debug messages.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = GLOBAL)]
    pub(crate) verbose: u8,
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

    fn parse(line: &str) -> Result<Args, clap::Error> {
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
        for command in ["read", "write", "stat", "list", "resize", "evict", "reload", "log", "bench"] {
            let help = parse(&format!("shmctl {command} --help")).unwrap_err();
            assert_eq!(help.kind(), ErrorKind::DisplayHelp);
            assert!(help.to_string().contains("Example"), "{help}");
        }
    }
}
