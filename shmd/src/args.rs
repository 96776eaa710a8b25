//! What the command line and the environment ask for. The options themselves are in `shm-cli`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use shm_cli::{Args, everyday_keys, nearest};

use crate::background::Background;
use crate::config::{self, Given, Located, Origin, Setting};
use crate::exit::Failure;
use crate::logging::Target;

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

/// To the complaint about a flag that would be another key's, or nearly: how that key is set.
fn name_set(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return error };
    let flag = flag.trim_start_matches('-').replace('-', "_");
    let written = flag.split('=').next().unwrap_or_default();
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let (mut command, keys) = (Args::command(), config::channel_keys());
    let flags: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    // Where a flag is as near as a key, clap has named it.
    let meant = nearest(written, flags.iter().map(String::as_str).chain(keys.iter().copied()));
    let Some(key) = meant.filter(|meant| !flags.iter().any(|flag| flag == meant)) else { return error };
    let which = if key == written { "this key".to_owned() } else { format!("did you mean the key {key}? It") };
    let tip = format!("{which} has no flag of its own: use '--set CHANNEL.{key}=VALUE'");
    error.remove(ContextKind::SuggestedArg);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    // That of the similar flag, so far.
    error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
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

/// Channel names may hold dots, keys do not.
fn any_key(text: &str) -> Result<(String, Setting), clap::Error> {
    let parts = text.split_once('=').and_then(|(key, value)| Some((key.rsplit_once('.')?, value)));
    let Some(((channel, key), value)) = parts else {
        let written = text.split('=').next().unwrap_or_default();
        let key = nearest(written, config::channel_keys().iter().copied());
        let way = key.map_or_else(String::new, |key| format!("; to set {key} of channel main, write main.{key}=VALUE"));
        return Err(usage(format!("--set {text:?} is not CHANNEL.KEY=VALUE, such as main.capacity=4MiB{way}")));
    };
    let origin = Origin::Flag(format!("--set {channel}.{key}"));
    let text = Located { value: value.to_owned(), origin };
    Ok((channel.to_owned(), Setting { key: key.to_owned(), text }))
}
