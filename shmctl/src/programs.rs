//! Commands that are programs of their own: `shmctl NAME` runs `shmctl-NAME` from the directory of `shmctl`, or else from `PATH`,
//! as git does. So their dependencies stay out of `shmctl`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Failure, Result};
use crate::global::Global;

/// What the program's name begins with.
pub(crate) const PREFIX: &str = "shmctl-";
/// The first argument with which a program of this project prints its manual page.
pub(crate) const MANUAL: &str = "--shmctl-manual";
/// The first argument with which it prints what may stand in the place of the last of the others.
pub(crate) const COMPLETE: &str = "--shmctl-complete";

/// The programs of this project: the command, what it does, and the package of the workspace.
const OURS: [(&str, &str, &str); 3] = [
    ("record", "Record channels into MCAP files", "shmctl/record"),
    ("relay", "Carry channels to other hosts and back, through NATS JetStream", "shmctl/relay"),
    ("replay", "Publish the messages of MCAP files again", "shmctl/record"),
];

/// The options of every command, and a command with its words, whichever it is.
#[derive(Debug, Parser)]
#[command(name = "shmctl", version, disable_help_subcommand = true)]
struct Line {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Words,
}

#[derive(Debug, Subcommand)]
enum Words {
    #[command(external_subcommand)]
    Any(Vec<OsString>),
}

/// A program that the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// This one, with these arguments.
    Program(PathBuf, Vec<OsString>),
    /// One of this project's, which is not installed.
    Missing { command: &'static str, package: &'static str },
}

impl Asked {
    /// Becomes the program. Returns only if that fails.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Asked::Program(path, args) => {
                let error = std::process::Command::new(&path).args(args).exec();
                Err(Failure::Other(format!("cannot run {}: {error}", path.display())))
            }
            Asked::Missing { command, package } => Err(Failure::Other(format!(
                "the command {command} is a program of its own, {PREFIX}{command}, which is neither in the directory of shmctl nor \
                 in PATH; install it, from the sources with: cargo install --path {package}"
            ))),
        }
    }
}

/// The program that the words ask for, unless they are for `shmctl` itself. `is_own` says which commands are its own.
pub(crate) fn asked_for(words: &[OsString], is_own: impl Fn(&str) -> bool) -> Option<Asked> {
    asked_in(words, is_own, &directories())
}

fn asked_in(words: &[OsString], is_own: impl Fn(&str) -> bool, directories: &[PathBuf]) -> Option<Asked> {
    // What the environment says reaches the program by itself, and a wrong value there is the program's to report.
    let line = Line::command().mut_args(|arg| arg.env(Resettable::Reset));
    let matches = line.try_get_matches_from(words).ok()?;
    let given = |option| matches.value_source(option) == Some(ValueSource::CommandLine);
    let (channel, runtime_dir) = (given("channel"), given("runtime_dir"));
    let Line { global, command: Words::Any(mut rest) } = Line::from_arg_matches(&matches).ok()?;
    let helps = rest.first().is_some_and(|word| word == "help");
    if helps {
        rest.remove(0);
    }
    let name = rest.first()?.to_str().filter(|name| is_name(name) && !is_own(name))?.to_owned();
    let Some(program) = find(&name, directories) else {
        let ours = OURS.iter().find(|(command, ..)| *command == name);
        return ours.map(|&(command, _, package)| Asked::Missing { command, package });
    };
    if helps {
        return Some(Asked::Program(program, vec!["--help".into()]));
    }
    let mut args = Vec::new();
    for name in global.channels().iter().filter(|_| channel) {
        args.extend(["--channel".into(), name.as_str().into()]);
    }
    if let Some(dir) = global.runtime_dir.filter(|_| runtime_dir) {
        args.extend(["--runtime-dir".into(), dir.into_os_string()]);
    }
    args.extend((0..global.verbose).map(|_| "-v".into()));
    args.extend(rest.into_iter().skip(1));
    Some(Asked::Program(program, args))
}

/// The command line with the programs that are installed as commands, for help and for suggestions.
pub(crate) fn add_to(command: clap::Command) -> clap::Command {
    let known: Vec<_> = command.get_subcommands().map(|known| known.get_name().to_owned()).collect();
    let found = installed(&directories()).into_iter().filter(|(name, _)| !known.contains(name));
    found.fold(command, |command, (name, path)| {
        let about = about(&name).map_or_else(|| format!("Run {}", path.display()), str::to_owned);
        // The command line is at its end: it shows this, and the process ends.
        command.subcommand(clap::Command::new(&*name.leak()).about(about))
    })
}

/// This project's programs that are installed, by command.
pub(crate) fn ours() -> Vec<(&'static str, PathBuf)> {
    let directories = directories();
    OURS.iter().filter_map(|&(name, ..)| Some((name, find(name, &directories)?))).collect()
}

/// What one of this project's programs does.
pub(crate) fn about(command: &str) -> Option<&'static str> {
    OURS.iter().find(|(ours, ..)| *ours == command).map(|(_, what, _)| *what)
}

/// Where programs are looked for, in this order.
fn directories() -> Vec<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A program in the present directory must not become a command by chance.
    own.into_iter().chain(std::env::split_paths(&path)).filter(|directory| directory.is_absolute()).collect()
}

fn find(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let program = format!("{PREFIX}{name}");
    directories.iter().map(|directory| directory.join(&program)).find(|path| is_program(path))
}

/// All programs in these directories, by command.
fn installed(directories: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in directories.iter().filter_map(|directory| directory.read_dir().ok()).flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        let command = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).filter(|name| is_name(name));
        if let Some(command) = command
            && !found.contains_key(command)
            && is_program(entry.path())
        {
            found.insert(command.to_owned(), entry.path());
        }
    }
    found
}

/// Whether this can be a command. It becomes a part of a path.
fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.starts_with('-') && !name.is_empty() && name.chars().all(is_letter)
}

fn is_program(path: impl AsRef<OsStr>) -> bool {
    Path::new(&path).metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::OpenOptionsExt;

    use shm_test_support::TempDir;

    use super::*;

    fn program(dir: &TempDir, name: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).unwrap();
        path
    }

    fn asked(line: &str, dirs: &[&TempDir]) -> Option<Asked> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let directories: Vec<PathBuf> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        asked_in(&words, |name| name == "read", &directories)
    }

    #[test]
    fn a_program_gets_the_options_before_its_name_and_everything_after_it() {
        let dir = TempDir::new();
        let path = program(&dir, "shmctl-fly", 0o755);
        for (line, args) in [
            ("shmctl fly", ""),
            ("shmctl fly --help -x read", "--help -x read"),
            ("shmctl -v -c cam --runtime-dir=/x fly -v high", "--channel cam --runtime-dir /x -v -v high"),
            ("shmctl help fly", "--help"),
        ] {
            let args = args.split_whitespace().map(OsString::from).collect();
            assert_eq!(asked(line, &[&dir]), Some(Asked::Program(path.clone(), args)), "{line}");
        }
    }

    #[test]
    fn the_first_directory_wins_and_what_cannot_be_run_is_no_program() {
        let (first, second) = (TempDir::new(), TempDir::new());
        program(&first, "shmctl-fly", 0o644);
        let later = program(&second, "shmctl-fly", 0o755);
        assert_eq!(asked("shmctl fly", &[&first, &second]), Some(Asked::Program(later, Vec::new())));
        let sooner = program(&first, "shmctl-swim", 0o755);
        program(&second, "shmctl-swim", 0o755);
        assert_eq!(asked("shmctl swim", &[&first, &second]), Some(Asked::Program(sooner, Vec::new())));
        let dirs = [first.to_path_buf(), second.to_path_buf()];
        assert_eq!(installed(&dirs).into_keys().collect::<Vec<_>>(), ["fly", "swim"]);
    }

    #[test]
    fn own_commands_and_wrong_lines_are_not_looked_for() {
        let dir = TempDir::new();
        program(&dir, "shmctl-read", 0o755);
        let outside = program(&dir, "evil", 0o755);
        let path = format!("shmctl ../{}", outside.display());
        for line in ["shmctl read", "shmctl help read", "shmctl", "shmctl --help", "shmctl help", "shmctl fly", &path] {
            assert_eq!(asked(line, &[&dir]), None, "{line}");
        }
        assert_eq!(
            asked("shmctl record cam", &[&dir]),
            Some(Asked::Missing { command: "record", package: "shmctl/record" })
        );
    }
}
