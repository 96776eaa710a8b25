//! The command line and the environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, CommandFactory, FromArgMatches, Parser};

use crate::background::Background;
use crate::config::{self, Given, Located, Origin, Setting};
use crate::exit::Failure;
use crate::logging::Target;

const AFTER_HELP: &str = "\
Without any configuration shmd serves one channel, main. Standard input feeds it if that is a pipe, a file or a socket.

Files: /etc/shmd/shmd.toml, then /etc/shmd/shmd.d/*.toml in the order of their names. With --config X.toml: X.toml, \
then X.d/*.toml. The command line wins over the environment, and the environment over the files.

Exit codes: 0 done, 1 failed, 2 a mistake on the command line, 77 not permitted, 78 a mistake in a file or an environment \
variable.";

/// Owns shared-memory channels: creates, feeds, resizes and removes them.
#[derive(Debug, Parser)]
#[command(name = "shmd", version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Read this file instead of /etc/shmd/shmd.toml
    #[arg(long, value_name = "FILE", env = "SHMD_CONFIG")]
    config: Option<OsString>,
    /// Print the resulting configuration and exit; the exit code is 2 or 78 if it has a mistake
    #[arg(long)]
    check: bool,
    /// Directory of the control socket and the lock file [default: /run/shmd, or $XDG_RUNTIME_DIR/shmd for a user]
    #[arg(long, value_name = "DIR", env = "SHMD_RUNTIME_DIR")]
    runtime_dir: Option<OsString>,
    /// First part of the names of the shared memory objects [default: shmd, or shmd-UID for a user]
    #[arg(long, env = "SHMD_PREFIX")]
    prefix: Option<String>,
    /// Least severity to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "SHMD_LOG")]
    log: Option<String>,
    /// Target of the log: stderr, syslog or file:PATH [default: stderr, with --daemonize syslog]
    #[arg(long, value_name = "TARGET", env = "SHMD_LOG_TARGET")]
    log_target: Option<String>,
    /// Log to this file. Wins over --log-target
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Write the process number to this file, and remove it at the end
    #[arg(long, value_name = "FILE", env = "SHMD_PID_FILE")]
    pid_file: Option<PathBuf>,
    /// Go into the background. Returns when the channels are ready, or with the reason of the failure and its exit code
    #[arg(long, conflicts_with = "check")]
    daemonize: bool,
    /// With --daemonize: the working directory
    #[arg(long, value_name = "DIR", default_value = "/", requires = "daemonize")]
    chdir: PathBuf,
    /// With --daemonize: permission bits to remove from new files, in octal
    #[arg(long, value_name = "MASK", default_value = "027", value_parser = mask, requires = "daemonize")]
    umask: u32,
    /// End when standard input has ended and its readers have read everything
    #[arg(long, env = "SHMD_EXIT_ON_EOF", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    exit_on_eof: Option<String>,
    /// Set any key of any channel, for example --set main.align=64 or --set cam.read=@video,alice
    #[arg(long, value_name = "CHANNEL.KEY=VALUE")]
    set: Vec<String>,
    /// For the daemon's own use: see `maintenance`
    #[arg(long, hide = true, value_name = "CHANNEL")]
    finish_shrink: Option<String>,
    /// For the daemon's own use: see `daemon::probe`
    #[arg(long, hide = true, value_name = "BOOL")]
    check_reexec: Option<bool>,
    #[command(flatten)]
    channel: ChannelArgs,
}

/// Everyday keys of the only channel. For the others, and with several channels, there is --set.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The only channel's everyday settings (other keys, and several channels: --set)")]
struct ChannelArgs {
    /// Name of the channel [default: main]
    #[arg(long, env = "SHMD_NAME")]
    name: Option<String>,
    /// Capacity at the start [default: 1MiB]
    #[arg(long, value_name = "SIZE", env = "SHMD_CAPACITY")]
    capacity: Option<String>,
    /// Largest capacity [default: 256MiB]
    #[arg(long, value_name = "SIZE", env = "SHMD_MAX")]
    max: Option<String>,
    /// Policy when the channel is full and cannot grow: block, drop or overwrite [default: block]
    #[arg(long, value_name = "POLICY", env = "SHMD_ON_FULL")]
    on_full: Option<String>,
    /// Source of messages: none, stdin, fifo:/PATH, unix:/PATH, unix-seqpacket:/PATH, exec:PROGRAM ARGUMENTS or tail:/PATH
    /// [default: none]
    #[arg(long, env = "SHMD_SOURCE")]
    source: Option<String>,
    /// Where the source's messages end: lines, nul, length, stream or chunk=SIZE [default: lines]
    #[arg(long, env = "SHMD_FRAMING")]
    framing: Option<String>,
    /// Publish nothing until N readers are attached [default: 0]
    #[arg(long, value_name = "N", env = "SHMD_WAIT_READERS")]
    wait_readers: Option<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Print the configuration instead of running.
    pub(crate) check: bool,
    /// Be the child that finishes a shrink of this channel.
    pub(crate) finish_shrink: Option<String>,
    /// Say what this program understands, for a daemon whose standard input is a feed or not.
    pub(crate) check_reexec: Option<bool>,
    /// Where the log goes.
    pub(crate) log_target: Target,
    /// The file for the process number, absolute.
    pub(crate) pid_file: Option<PathBuf>,
    /// Go into the background.
    pub(crate) background: Option<Background>,
    /// Settings that win over the files.
    pub(crate) given: Given,
}

/// Reads the command line and the environment. Paths on the command line are relative to `start_dir`.
///
/// # Errors
/// Usage errors and the texts of `--help` and `--version` are clap's; a wrong value is an error that names its place.
pub(crate) fn parse<I, T>(line: I, start_dir: &Path) -> Result<Asked, Failure>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = Args::command().try_get_matches_from(line).map_err(name_set)?;
    refuse_variables_of_other_keys()?;
    let args = Args::from_arg_matches(&matches)?;
    let from_here = |path: PathBuf| from(start_dir, path);
    let file = args.config.filter(|file| !file.is_empty());
    // In the background it is read again from another directory.
    let place = |path: PathBuf| if args.daemonize { from_here(path) } else { Ok(path) };
    let file = file.map(|file| place(file.into())).transpose()?;
    let config = origin(&matches, "config").zip(file).map(|(origin, value)| Located { value, origin });
    let mut given = Given { config, ..Given::default() };
    let runtime_dir = args.runtime_dir.as_deref().zip(origin(&matches, "runtime_dir"));
    let runtime_dir = runtime_dir.map(|(path, origin)| absolute(start_dir, path, &origin)).transpose()?;
    for (key, value) in [("runtime_dir", runtime_dir), ("prefix", args.prefix), ("log", args.log)] {
        given.top.extend(setting(&matches, key, value));
    }
    if let Some(Setting { text, .. }) = setting(&matches, "exit_on_eof", args.exit_on_eof) {
        let exit: bool =
            text.value.parse().map_err(|_| text.bad(format!("{:?} is neither true nor false", text.value)))?;
        given.exit_on_eof = exit.then_some(text.origin);
    }
    for key in everyday_keys() {
        given.channel.extend(setting(&matches, &key, matches.get_one::<String>(&key).cloned()));
    }
    given.set = args.set.iter().map(|text| any_key(text)).collect::<Result<_, _>>()?;
    let log_target = setting(&matches, "log_target", args.log_target).map(|Setting { text, .. }| text);
    let log_target = log_target.map(|text| text.value.parse::<Target>().map_err(|e| text.bad(e))).transpose()?;
    let log_target = match args.log_file.map(Target::File).or(log_target) {
        Some(Target::File(path)) => Target::File(from_here(path)?),
        Some(target) => target,
        None if args.daemonize => Target::Syslog,
        None => Target::Stderr,
    };
    let background = match args.daemonize {
        true => Some(Background { dir: from_here(args.chdir)?, umask: args.umask }),
        false => None,
    };
    Ok(Asked {
        check: args.check,
        finish_shrink: args.finish_shrink,
        check_reexec: args.check_reexec,
        log_target,
        pid_file: args.pid_file.map(from_here).transpose()?,
        background,
        given,
    })
}

/// The keys that have a flag and a variable.
fn everyday_keys() -> Vec<String> {
    let command = ChannelArgs::augment_args(clap::Command::new("channel"));
    command.get_arguments().map(|arg| arg.get_id().to_string()).collect()
}

/// To the complaint about a flag that would be another key's: how that key is set.
fn name_set(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = flag.trim_start_matches('-').replace('-', "_");
    let key = flag.split('=').next().unwrap_or_default();
    if error.kind() == ErrorKind::UnknownArgument && config::channel_keys().contains(&key) {
        let tip = format!("this key has no flag of its own: use '--set CHANNEL.{key}=VALUE'");
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        // That of the similar flag, so far.
        error.insert(ContextKind::Usage, ContextValue::StyledStr(Args::command().render_usage()));
    }
    error
}

/// A variable that would be another key's must not be passed over in silence.
fn refuse_variables_of_other_keys() -> Result<(), config::Error> {
    let everyday = everyday_keys();
    for key in config::channel_keys().iter().filter(|key| !everyday.iter().any(|known| known == *key)) {
        let name = format!("SHMD_{}", key.to_ascii_uppercase());
        if std::env::var_os(&name).is_some_and(|value| !value.is_empty()) {
            let reason = format!("this key has no variable: use --set CHANNEL.{key}=VALUE, or write it to a file");
            return Err(config::Error::Bad { origin: Origin::Variable(name), reason });
        }
    }
    Ok(())
}

/// A usage error in clap's form, which goes to standard error with exit code 2.
pub(crate) fn usage(message: impl std::fmt::Display) -> clap::Error {
    Args::command().error(ErrorKind::ValueValidation, message)
}

/// An empty variable counts as none: that is how a unit file or a shell takes a setting back.
fn setting(matches: &ArgMatches, key: &str, value: Option<String>) -> Option<Setting> {
    let (origin, value) = origin(matches, key).zip(value)?;
    let from_env = matches.value_source(key) == Some(ValueSource::EnvVariable);
    (!(from_env && value.is_empty())).then(|| Setting { key: key.to_owned(), text: Located { value, origin } })
}

/// How the user spelt an argument: the flag or the variable.
fn origin(matches: &ArgMatches, id: &str) -> Option<Origin> {
    match matches.value_source(id)? {
        ValueSource::EnvVariable => Some(Origin::Variable(format!("SHMD_{}", id.to_ascii_uppercase()))),
        ValueSource::CommandLine => Some(Origin::Flag(format!("--{}", id.replace('_', "-")))),
        _ => None,
    }
}

/// Paths on the command line are relative to the present directory, which the daemon may leave.
fn absolute(start_dir: &Path, path: &OsStr, origin: &Origin) -> Result<String, config::Error> {
    if path.is_empty() {
        return Ok(String::new());
    }
    let bad = |reason: String| config::Error::Bad { origin: origin.clone(), reason };
    let path = std::path::absolute(start_dir.join(path)).map_err(|e| bad(format!("{}: {e}", path.display())))?;
    path.into_os_string().into_string().map_err(|path| bad(format!("{} is not UTF-8 text", path.display())))
}

/// The absolute form of a path that is relative to this directory.
fn from(start_dir: &Path, path: PathBuf) -> Result<PathBuf, clap::Error> {
    std::path::absolute(start_dir.join(&path)).map_err(|e| usage(format!("{}: {e}", path.display())))
}

fn mask(text: &str) -> Result<u32, String> {
    let refuse = || format!("{text:?} is not an octal number from 0 to 777");
    u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777).ok_or_else(refuse)
}

/// Channel names may hold dots, keys do not.
fn any_key(text: &str) -> Result<(String, Setting), clap::Error> {
    let parts = text.split_once('=').and_then(|(key, value)| Some((key.rsplit_once('.')?, value)));
    let Some(((channel, key), value)) = parts else {
        return Err(usage(format!("--set {text:?} is not CHANNEL.KEY=VALUE, such as main.capacity=4MiB")));
    };
    let origin = Origin::Flag(format!("--set {channel}.{key}"));
    let text = Located { value: value.to_owned(), origin };
    Ok((channel.to_owned(), Setting { key: key.to_owned(), text }))
}
