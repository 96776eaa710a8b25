//! The daemon's command line and environment. `shmd` says what becomes of the values.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as _, Parser, ValueHint};

use crate::exit_code::{ExitCode, exit_codes};

/// The daemon's exit codes.
pub const EXIT_CODES: &[ExitCode] = &[
    ExitCode::new(0, "stopped by SIGTERM or SIGINT, or at the end of its input with --exit-on-eof"),
    ExitCode::new(1, "failed: the message states the reason"),
    ExitCode::new(2, "a mistake on the command line or in an environment variable"),
    ExitCode::new(75, "timed out"),
    ExitCode::new(77, "not permitted"),
    ExitCode::new(78, "a mistake in a configuration file or in the socket unit"),
];

fn after_help() -> String {
    format!(
        "\
Without any configuration shmd serves one channel, main. Standard input feeds it if that is a pipe, a file or a socket.

Files: /etc/shmd/shmd.toml, then /etc/shmd/shmd.d/*.toml in the order of their names. With --config X.toml: X.toml, then X.d/*.toml. \
The command line wins over the environment, and the environment over the files.

If systemd hands over the socket of shmd.socket (LISTEN_FDS), shmd uses that one and leaves it in its place when it stops.

Exit codes:
{}

Examples:
  shmd                                    one channel, main, in the foreground
  seq 1000 | shmd --exit-on-eof --wait-readers 1
                                          publishes the lines when a reader is there, and ends
  shmd --source fifo:/run/shmd/in --framing nul
  shmd --config /etc/shmd/shmd.toml --check
                                          what files, environment and options come to
  shmd --name cam --max 64MiB --set cam.align=64 --set 'cam.read=*'
  shmd --daemonize --pid-file /run/shmd.pid --log-file /var/log/shmd.log
                                          returns when the channels are there",
        exit_codes(EXIT_CODES)
    )
}

/// Owns shared-memory channels: creates, feeds, resizes and removes them.
#[derive(Debug, Parser)]
#[command(name = "shmd", version, after_help = after_help(), max_term_width = 100)]
#[allow(missing_docs, reason = "the help describes each option")]
pub struct Args {
    /// Read this file instead of /etc/shmd/shmd.toml
    #[arg(long, value_name = "FILE", env = "SHMD_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: Option<OsString>,
    /// Print the resulting configuration and exit; the exit code is 2 or 78 if it has a mistake
    #[arg(long)]
    pub check: bool,
    /// Directory of the control socket and the lock file [default: /run/shmd, or $XDG_RUNTIME_DIR/shmd for a user]
    #[arg(long, value_name = "DIR", env = "SHMD_RUNTIME_DIR", value_hint = ValueHint::DirPath)]
    pub runtime_dir: Option<OsString>,
    /// First part of the names of the shared memory objects [default: shmd, or shmd-UID for a user]
    #[arg(long, env = "SHMD_PREFIX")]
    pub prefix: Option<String>,
    /// Least severity to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "SHMD_LOG")]
    pub log: Option<String>,
    /// Target of the log: stderr, syslog or file:PATH [default: stderr, with --daemonize syslog]
    #[arg(long, value_name = "TARGET", env = "SHMD_LOG_TARGET")]
    pub log_target: Option<String>,
    /// Log to this file. Wins over --log-target
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
    /// Write the process number to this file, and remove it at the end
    #[arg(long, value_name = "FILE", env = "SHMD_PID_FILE", value_hint = ValueHint::FilePath)]
    pub pid_file: Option<PathBuf>,
    /// Go into the background. Returns when the channels are ready, or with the reason of the failure and its exit code
    #[arg(long, conflicts_with = "check")]
    pub daemonize: bool,
    /// With --daemonize: the working directory
    #[arg(long, value_name = "DIR", default_value = "/", requires = "daemonize", value_hint = ValueHint::DirPath)]
    pub chdir: PathBuf,
    /// With --daemonize: permission bits to remove from new files, in octal
    #[arg(long, value_name = "MASK", default_value = "027", value_parser = mask, requires = "daemonize")]
    pub umask: u32,
    /// End when standard input has ended and its readers have read everything
    #[arg(long, env = "SHMD_EXIT_ON_EOF", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub exit_on_eof: Option<String>,
    /// Set any key of any channel, for example --set main.align=64 or --set cam.read=@video,alice
    #[arg(long, value_name = "CHANNEL.KEY=VALUE")]
    pub set: Vec<String>,
    /// For the daemon's own use: see its module `maintenance`
    #[arg(long, hide = true, value_name = "CHANNEL")]
    pub finish_shrink: Option<String>,
    /// For the daemon's own use: see its module `daemon::probe`
    #[arg(long, hide = true, value_name = "BOOL")]
    pub check_reexec: Option<bool>,
    #[command(flatten)]
    pub channel: ChannelArgs,
}

/// Everyday keys of the only channel. For the others, and with several channels, there is --set.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The only channel's everyday settings (other keys, and several channels: --set)")]
#[allow(missing_docs, reason = "the help describes each option")]
pub struct ChannelArgs {
    /// Name of the channel [default: main]
    #[arg(long, env = "SHMD_NAME")]
    pub name: Option<String>,
    /// Capacity at the start [default: 1MiB]
    #[arg(long, value_name = "SIZE", env = "SHMD_CAPACITY")]
    pub capacity: Option<String>,
    /// Largest capacity [default: 256MiB]
    #[arg(long, value_name = "SIZE", env = "SHMD_MAX")]
    pub max: Option<String>,
    /// Policy when the channel is full and cannot grow: block, drop or overwrite [default: block]
    #[arg(long, value_name = "POLICY", env = "SHMD_ON_FULL")]
    pub on_full: Option<String>,
    /// Source of messages: none, stdin, fifo:/PATH, unix:/PATH, unix-seqpacket:/PATH, exec:PROGRAM ARGUMENTS or tail:/PATH
    /// [default: none]
    #[arg(long, env = "SHMD_SOURCE")]
    pub source: Option<String>,
    /// Where the source's messages end: lines, nul, length, stream or chunk=SIZE [default: lines]
    #[arg(long, env = "SHMD_FRAMING")]
    pub framing: Option<String>,
    /// Publish nothing until N readers are attached [default: 0]
    #[arg(long, value_name = "N", env = "SHMD_WAIT_READERS")]
    pub wait_readers: Option<String>,
}

/// The keys of a channel that have an option and a variable of their own.
#[must_use]
pub fn everyday_keys() -> Vec<String> {
    let command = ChannelArgs::augment_args(clap::Command::new("channel"));
    command.get_arguments().map(|arg| arg.get_id().to_string()).collect()
}

fn mask(text: &str) -> Result<u32, String> {
    let refuse = || format!("{text:?} is not an octal number from 0 to 777");
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::keys;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_of_keys_show_the_defaults_of_the_keys() {
        let command = Args::command();
        let help = |id: &str| {
            let arg = command.get_arguments().find(|arg| arg.get_id() == id).unwrap_or_else(|| panic!("{id}"));
            arg.get_help().unwrap().to_string()
        };
        for name in everyday_keys() {
            let key = keys::CHANNEL.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{name} is no key"));
            let default = format!("[default: {}]", key.default.replace('`', ""));
            assert!(help(&name).ends_with(&default), "{name}: {}, and {default} in the table", help(&name));
        }
        assert!(help("log").ends_with("[default: info]"));
    }

    #[test]
    fn a_mask_is_octal() {
        assert_eq!((mask("027"), mask("0777")), (Ok(0o27), Ok(0o777)));
        assert!(mask("1000").is_err() && mask("8").is_err() && mask("").is_err());
    }
}
