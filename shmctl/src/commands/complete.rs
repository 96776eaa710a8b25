//! `shmctl complete`: what may stand at the cursor of a command line. The scripts that `shmctl completions` prints call it, for both
//! programs, because only a program can know the names of channels at that moment.

mod place;
mod values;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use clap::{Args as ClapArgs, Command, CommandFactory};

use self::place::{Place, What};
use self::values::Candidate;
use crate::error::{Failure, Result};
use crate::global::Global;
use crate::output::print;
use crate::programs::{self, COMPLETE};

/// Print what may stand in the place of the last word.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The words up to the cursor. The first is the program, and the last may be empty.
    #[arg(value_name = "WORD", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// What the scripts are told.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Words(Vec<Candidate>),
    /// The shell knows these itself.
    Files,
    Directories,
}

pub(crate) fn run(args: &Args, global: &Global, shmctl: Command) -> Result<()> {
    let words = texts(&args.words);
    if let Some(mut program) = program_asked(&words, shmctl.clone()) {
        let error = program.exec();
        return Err(Failure::Other(format!("cannot run {}: {error}", program.get_program().display())));
    }
    print(&shown(&answer(&words, global, shmctl)))
}

/// The same for a command that is a program of its own: the first word is the command.
pub(crate) fn print_words(words: &[OsString], command: Command) -> Result<()> {
    let runtime_dir = std::env::var_os("SHMD_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(Into::into);
    let global = Global::in_dir(runtime_dir);
    print(&shown(&answer(&texts(words), &global, command)))
}

fn texts(words: &[OsString]) -> Vec<String> {
    words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The program of this project that knows the words, with what it needs.
fn program_asked(words: &[String], mut shmctl: Command) -> Option<std::process::Command> {
    shmctl.build();
    let place = Place::of(&shmctl, words);
    let (name, path) = programs::ours().into_iter().find(|(name, _)| *name == place.command.get_name())?;
    let at = words.iter().position(|word| word == name)?;
    let mut program = std::process::Command::new(path);
    program.arg(COMPLETE).args(&words[at..]);
    if let Some(dir) = place.given("runtime_dir") {
        program.env("SHMD_RUNTIME_DIR", dir);
    }
    Some(program)
}

fn answer(words: &[String], global: &Global, shmctl: Command) -> Answer {
    let is_daemon = words.first().is_some_and(|program| program.rsplit('/').next() == Some("shmd"));
    let mut root = if is_daemon { shm_cli::Args::command() } else { shmctl };
    root.build();
    let place = Place::of(&root, words);
    let mut answer = match place.what {
        What::Option => Answer::Words(options(&place)),
        What::Command => Answer::Words(commands(place.command)),
        What::Value(arg) => values::of(arg, &place, global),
        What::Nothing => Answer::Words(Vec::new()),
    };
    if let Answer::Words(candidates) = &mut answer {
        candidates.retain(|candidate| candidate.text.starts_with(&place.typed));
        candidates.iter_mut().for_each(|candidate| candidate.text.insert_str(0, &place.before));
    }
    answer
}

/// A line for each candidate, with what it means behind a tabulator.
fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Files => ":files\n".to_owned(),
        Answer::Directories => ":directories\n".to_owned(),
        Answer::Words(candidates) => candidates.iter().map(|it| format!("{}\t{}\n", it.text, it.about)).collect(),
    }
}

fn options(place: &Place<'_>) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for arg in place.command.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_positional()) {
        let about = arg.get_help().map(first_sentence).unwrap_or_default();
        // One that was given may be given again if it counts or collects.
        let again = matches!(arg.get_action(), clap::ArgAction::Append | clap::ArgAction::Count);
        if place.has(arg.get_id().as_str()) && !again {
            continue;
        }
        candidates.extend(arg.get_long().map(|long| Candidate::new(format!("--{long}"), &about)));
        candidates.extend(arg.get_short().map(|short| Candidate::new(format!("-{short}"), &about)));
    }
    candidates
}

fn commands(command: &Command) -> Vec<Candidate> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown
        .map(|command| Candidate::new(command.get_name(), &command.get_about().map(first_sentence).unwrap_or_default()))
        .collect()
}

/// As much of a help text as stands beside a candidate.
fn first_sentence(help: &clap::builder::StyledStr) -> String {
    let text = help.to_string().replace(['\n', '\t'], " ");
    let end = text.find(". ").or_else(|| text.find(" [default")).unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The candidates for the end of a line, without a daemon.
    fn at(line: &str) -> Vec<String> {
        match whole(line) {
            Answer::Words(candidates) => candidates.into_iter().map(|it| it.text).collect(),
            other => vec![format!("{other:?}")],
        }
    }

    fn whole(line: &str) -> Answer {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let global = Global::in_dir(Some("/nonexistent".into()));
        let command = Command::new("shmctl")
            .arg(clap::Arg::new("channel").short('c').long("channel").global(true))
            .arg(clap::Arg::new("runtime_dir").long("runtime-dir").value_hint(clap::ValueHint::DirPath).global(true))
            .subcommand(crate::commands::read::Args::augment_args(Command::new("read")))
            .subcommand(crate::commands::bench::Args::augment_args(Command::new("bench")))
            .subcommand(crate::commands::create::Args::augment_args(Command::new("create")))
            .subcommand(Command::new("hidden").hide(true));
        answer(&words, &global, command)
    }

    #[test]
    fn commands_and_options_are_found_by_their_beginnings() {
        assert_eq!(at("shmctl "), ["read", "bench", "create", "help"]);
        assert_eq!(at("shmctl re"), ["read"]);
        assert_eq!(at("shmctl help re"), ["read"]);
        assert_eq!(at("shmctl read --fo"), ["--follow", "--format"]);
        assert_eq!(at("shmctl read --follow --fo"), ["--format"]);
        assert_eq!(at("shmctl read --chan"), ["--channel"]);
        assert_eq!(at("/usr/bin/shmctl read --until"), ["--until-empty"]);
        assert!(at("shmctl read -").contains(&"-n".to_owned()));
        assert_eq!(at("shmctl hid"), [""; 0]);
    }

    #[test]
    fn values_are_found_in_every_form_of_an_option() {
        assert_eq!(at("shmctl read --from "), ["oldest", "new"]);
        assert_eq!(at("shmctl read --from=o"), ["--from=oldest"]);
        assert_eq!(at("shmctl read --format h"), ["hex", "hexdump"]);
        assert_eq!(at("shmctl bench --measure latency,t"), ["latency,throughput"]);
        assert_eq!(at("shmctl read --runtime-dir "), ["Directories"]);
        assert_eq!(at("shmctl -c"), ["-c"]);
        assert_eq!(at("shmctl -c cam re"), ["read"]);
        assert_eq!(at("shmctl read -n "), [""; 0]);
        assert_eq!(at("shmctl read -fn 5 --from o"), ["oldest"]);
        assert_eq!(at("shmctl read -- --fo"), [""; 0]);
    }

    #[test]
    fn the_daemons_options_and_keys_are_known_too() {
        assert_eq!(at("shmd --runtime"), ["--runtime-dir"]);
        assert_eq!(at("/usr/bin/shmd --on-full "), ["block", "drop", "overwrite"]);
        assert_eq!(at("shmd --config "), ["Files"]);
        assert_eq!(at("shmd --set ma"), at("shmd --set main."));
        assert_eq!(at("shmd --set main.max"), ["main.max=", "main.max_message=", "main.max_readers="]);
        assert_eq!(at("shmd --name cam --set cam.ali"), ["cam.align="]);
        assert_eq!(at("shmd --set main.mode="), ["main.mode=ring", "main.mode=handoff"]);
        assert_eq!(at("shmd --set=main.ack=t"), ["--set=main.ack=true"]);
        assert_eq!(at("shmd --finish"), [""; 0]);
    }

    #[test]
    fn a_new_channels_keys_stand_alone() {
        assert_eq!(at("shmctl create cam --set ma"), ["max=", "max_message=", "max_readers="]);
        assert_eq!(at("shmctl create cam --set mode="), ["mode=ring", "mode=handoff"]);
        assert_eq!(at("shmctl create --set=timestamps=t"), ["--set=timestamps=true"]);
        assert_eq!(at("shmctl create --on-full b"), ["block"]);
        assert_eq!(at("shmctl create "), [""; 0]);
    }

    #[test]
    fn what_a_candidate_means_stands_behind_it() {
        assert_eq!(shown(&whole("shmctl re")), "read\tWrite the messages of channels to standard output\n");
        let text = shown(&whole("shmctl read --from "));
        assert!(text.starts_with("oldest\tAt the oldest message"), "{text}");
        assert_eq!(shown(&whole("shmctl --runtime-dir=")), ":directories\n");
    }
}
