//! The command line as a whole; each command's own arguments are with the command.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use shm_cli::{exit_codes, without_empty_variables};
use shm_proto::ChannelName;

use crate::commands::{
    bench, complete, completions, create, doctor, evict, list, log, manual, metrics, read, reexec, reload, remove,
    resize, stat, top, write,
};
use crate::error::{Failure, Result};
use crate::exit_code;
use crate::global::{Global, check_variables};
use crate::programs;

fn after_help() -> String {
    format!(
        "Exit codes:\n{}\n\ndoctor has exit codes of its own: see shmctl doctor --help\n\nExamples:\n  shmctl help read\n  \
         shmctl list\n  shmctl stat --watch",
        exit_codes(exit_code::CODES)
    )
}

/// Reads, writes, inspects and resizes the channels of a running shmd.
///
/// Data goes to standard output, messages for people to standard error. A channel name is needed only if there are several.
#[derive(Debug, Parser)]
#[command(name = "shmctl", version, after_help = after_help(), max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// The arguments in `words`, the program's name first. Help and suggestions name the programs beside `shmctl`, too.
    pub(crate) fn from_line<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        Args::from_words(Args::command(), &words).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::InvalidSubcommand => {
                Args::from_words(programs::add_to(Args::command()), &words).err().unwrap_or(error)
            }
            _ => error,
        })
    }

    fn from_words(command: clap::Command, words: &[OsString]) -> Result<Self, clap::Error> {
        let matches = without_empty_variables(command).try_get_matches_from(words)?;
        let mut args = Args::from_arg_matches(&matches)?;
        args.global.take_options(&matches);
        Ok(args)
    }

    /// Whether this is one of the commands, `help` included.
    pub(crate) fn is_command(name: &str) -> bool {
        name == "help" || Args::command().find_subcommand(name).is_some()
    }

    /// Joins the channel that the command has as an argument with the options.
    pub(crate) fn settle(&mut self) -> Result<()> {
        check_variables()?;
        let channels = self.command.channels()?;
        match self.command {
            Command::Read(_) => self.global.name_several(&channels),
            _ => self.global.name(channels.first()),
        }
    }

    /// The channels that the command is about, if they are named.
    pub(crate) fn channels(&self) -> Vec<ChannelName> {
        match self.command.channels() {
            Ok(channels) if !channels.is_empty() => channels,
            _ => self.global.channels().to_vec(),
        }
    }

    /// Carries out the command.
    pub(crate) fn run(self) -> Result<()> {
        let global = self.global;
        match self.command {
            Command::Read(args) => read::run(&args, &global),
            Command::Write(args) => write::run(args, &global),
            Command::Stat(args) => stat::run(&args, &global),
            Command::Top(args) => top::run(&args, &global),
            Command::List(args) => list::run(&args, &global),
            Command::Resize(args) => resize::run(&args, &global),
            Command::Evict(args) => evict::run(&args, &global),
            Command::Create(args) => create::run(&args, &global),
            Command::Remove(args) => remove::run(&args, &global),
            Command::Reload(args) => reload::run(&args, &global),
            Command::Reexec(args) => reexec::run(&args, &global),
            Command::Log(args) => log::run(&args, &global),
            Command::Metrics(args) => metrics::run(&args, &global),
            Command::Doctor(args) => doctor::run(&args, &global),
            Command::Bench(args) => bench::run(&args, &global),
            Command::Completions(args) => completions::run(&args),
            Command::Manual(args) => manual::run(&args, Args::command()),
            Command::Complete(args) => complete::run(&args, &global, programs::add_to(Args::command())),
            Command::BenchWorker(args) => shm_bench::worker::run(&args).map_err(Failure::of_bench),
        }
    }
}

impl Command {
    /// The channels among the command's own arguments.
    fn channels(&self) -> Result<Vec<ChannelName>> {
        match self {
            Command::Read(args) => Ok(args.channels()),
            Command::Write(args) => Ok(args.target.channels()),
            Command::Stat(args) => args.channels(),
            Command::Top(args) => Ok(args.target.channels()),
            Command::List(args) => Ok(args.target.channels()),
            Command::Log(args) => Ok(args.target.channels()),
            Command::Metrics(args) => Ok(args.target.channels()),
            Command::Doctor(args) => Ok(args.target.channels()),
            Command::Bench(args) => Ok(args.target.channels()),
            Command::Create(args) => Ok(args.target.channels()),
            Command::Remove(args) => Ok(args.target.channels()),
            Command::Resize(args) => Ok(args.wanted()?.0.into_iter().collect()),
            Command::Evict(args) => Ok(args.wanted()?.0.into_iter().collect()),
            Command::Reload(_)
            | Command::Reexec(_)
            | Command::Completions(_)
            | Command::Manual(_)
            | Command::Complete(_)
            | Command::BenchWorker(_) => Ok(Vec::new()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Read(read::Args),
    Write(write::Args),
    Stat(stat::Args),
    Top(top::Args),
    List(list::Args),
    Resize(resize::Args),
    Evict(evict::Args),
    Create(create::Args),
    Remove(remove::Args),
    Reload(reload::Args),
    Reexec(reexec::Args),
    Log(log::Args),
    Metrics(metrics::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Completions(completions::Args),
    Manual(manual::Args),
    #[command(hide = true)]
    Complete(complete::Args),
    #[command(hide = true)]
    BenchWorker(shm_bench::worker::Args),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> std::result::Result<Args, clap::Error> {
        Args::from_line(line.split_whitespace())
    }

    /// The channel that follows from a command line, or the usage error.
    fn channel(line: &str) -> Result<Option<String>> {
        let mut args = parse(line).unwrap();
        args.settle()?;
        Ok(args.global.channel.map(|name| name.to_string()))
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
            ("shmctl stat --watch=a/b", "A-Z"),
            ("shmctl stat --watch=1ms", "10ms"),
            ("shmctl metrics --listen :9100", "unix:PATH"),
            ("shmctl top --interval 1ms", "10ms"),
            ("shmctl top --json", "--once"),
            ("shmctl write --handoff --segment /a --avail /b --done /c --ack-timeout 0", "shortest is 1ms"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            let text = error.to_string();
            assert!(text.contains(shown), "{line}: {text}");
        }
    }

    #[test]
    fn a_channel_may_be_an_argument_or_an_option_of_every_command_that_takes_one() {
        for command in [
            "read",
            "write",
            "stat",
            "top",
            "list",
            "log",
            "metrics",
            "doctor",
            "bench",
            "create",
            "remove",
            "resize --bytes 4KiB",
            "evict --reader 3",
        ] {
            for line in [format!("{command} cam"), format!("{command} -c cam"), format!("-c cam {command} cam")] {
                assert_eq!(channel(&format!("shmctl {line}")).unwrap().as_deref(), Some("cam"), "{line}");
            }
            assert_eq!(channel(&format!("shmctl {command}")).unwrap(), None, "{command}");
            let refused = channel(&format!("shmctl {command} cam --channel imu")).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{command}");
            let told = refused.to_string();
            assert!(told.contains("cam") && told.contains("--channel imu"), "{command}: {told}");
        }
        for line in ["resize cam 4MiB", "evict cam 3", "resize 4MiB -c cam", "evict 3 -c cam"] {
            assert_eq!(channel(&format!("shmctl {line}")).unwrap().as_deref(), Some("cam"), "{line}");
        }
        for line in ["resize", "resize cam", "evict", "evict cam", "evict cam 3 --reader 4"] {
            assert_eq!(channel(&format!("shmctl {line}")).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn commands_that_take_several_channels_take_several_options() {
        let channels = |line: &str| {
            let mut args = parse(line).unwrap();
            args.settle().map(|()| args.channels().iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        for line in ["read -c cam -c imu", "read cam imu", "read cam imu -c imu", "read cam imu -c imu -c cam"] {
            assert_eq!(channels(&format!("shmctl {line}")).unwrap(), ["cam", "imu"], "{line}");
        }
        for (line, parts) in [
            ("read -c cam -c cam", ["cam", "twice"]),
            ("read cam cam", ["cam", "twice"]),
            ("read cam imu -c gps", ["cam", "--channel gps"]),
            ("write -c cam -c imu", ["--channel cam", "--channel imu"]),
            ("stat cam -c cam -c imu", ["--channel imu", "one channel"]),
            ("reload -c cam -c imu", ["--channel imu", "one channel"]),
        ] {
            let refused = channels(&format!("shmctl {line}")).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{line}");
            let told = refused.to_string();
            assert!(parts.iter().all(|part| told.contains(part)), "{line}: {told}");
        }
    }

    #[test]
    fn only_a_channel_on_the_command_line_is_given_and_wins_over_the_environment() {
        for (line, given) in [
            ("shmctl bench", false),
            ("shmctl --channel cam bench", true),
            ("shmctl bench --channel=cam", true),
            ("shmctl -vc cam bench", true),
            ("shmctl bench cam", true),
            ("shmctl bench --cpu 0,1", false),
        ] {
            let mut args = parse(line).unwrap();
            args.settle().unwrap();
            assert_eq!(args.global.is_given, given, "{line}");
        }
        let mut args = parse("shmctl read cam").unwrap();
        args.global.channel = Some("usual".parse().unwrap());
        args.settle().unwrap();
        assert_eq!(args.global.channel.unwrap().as_str(), "cam");
    }

    #[test]
    fn a_slip_of_the_hand_is_answered_with_what_is_meant() {
        for (line, meant) in [
            ("shmctl raed", "'read'"),
            ("shmctl read --folow", "'--follow'"),
            ("shmctl read --from oldst", "'oldest'"),
            ("shmctl bench --measure latncy", "'latency'"),
        ] {
            let told = parse(line).unwrap_err().to_string();
            assert!(told.contains("similar") && told.contains(meant), "{line}: {told}");
        }
    }

    #[test]
    fn help_is_a_command_too() {
        for line in ["shmctl help", "shmctl help read", "shmctl help help"] {
            assert_eq!(parse(line).unwrap_err().kind(), ErrorKind::DisplayHelp, "{line}");
        }
        assert_eq!(parse("shmctl help reed").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_command_is_needed_and_help_is_no_error() {
        assert_eq!(parse("shmctl").unwrap_err().exit_code(), 2);
        for command in [
            "read", "write", "stat", "top", "list", "resize", "evict", "create", "remove", "reload", "reexec", "log",
            "metrics", "doctor", "bench",
        ] {
            let help = parse(&format!("shmctl {command} --help")).unwrap_err();
            assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        }
    }

    #[test]
    fn every_command_has_examples_and_each_line_of_a_list_fits_a_line_of_the_help() {
        let command = Args::command();
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut examples = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
            assert!(examples.any(|line| line.contains("shmctl")), "{}: {help}", command.get_name());
            let listed = help.lines().filter(|line| line.starts_with("  "));
            listed.for_each(|line| assert!(line.chars().count() <= 100, "{}: {line}", command.get_name()));
        }
    }
}
