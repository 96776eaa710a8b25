//! The surface of both programs, `etc/surface.txt`: what scripts and monitoring may rely on. A change of a command, an option, an exit
//! code or a field of the JSON output shows in that file, so it is made on purpose.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory};
use shm_cli::ExitCode;
use shm_test_support::Schema;

use crate::args::Args;
use crate::exit_code;

const HEAD: &str = "\
# What scripts and monitoring may rely on: commands, options with their values, defaults and variables, exit codes, and the fields of
# the JSON output. A test compares this file with the programs and with etc/schemas. Renew it with
#     SHMD_BLESS=1 cargo test -p shmctl --lib surface
# and look at the difference: a line that is gone or different breaks somebody's script.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A line for each command and option.
fn command_line(command: &Command, above: &[&Arg], lines: &mut Vec<String>) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    lines.push(String::new());
    lines.push(name.to_owned());
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    // Those of every command are listed with the program, and those of every part of a command with the command.
    let is_above = |arg: &Arg| arg.is_global_set() && above.iter().any(|it| it.get_long() == arg.get_long());
    let own: Vec<&Arg> = shown.filter(|arg| !is_above(arg)).collect();
    let below: Vec<&Arg> = above.iter().chain(&own).filter(|arg| arg.is_global_set()).copied().collect();
    lines.extend(own.into_iter().filter(|arg| !is_help(arg)).map(|arg| format!("{name} {}", option(arg))));
    for command in shown_commands(command) {
        command_line(command, &below, lines);
    }
}

fn shown_commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// `-n, --count <COUNT>`, and what else there is to know about it.
fn option(arg: &Arg) -> String {
    let short = arg.get_short().filter(|_| arg.get_long().is_some()).map(|short| format!("-{short}, "));
    let mut line = short.unwrap_or_default() + &arg.to_string();
    let takes_values = arg.get_action().takes_values();
    let list = |values: Vec<String>| values.join(",");
    let defaults = list(arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect());
    if takes_values && !defaults.is_empty() {
        line += &format!("  default {defaults}");
    }
    let values = arg.get_possible_values();
    let values = values.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name().to_owned());
    let values = list(values.collect());
    if takes_values && !values.is_empty() {
        line += &format!("  one of {values}");
    }
    if let Some(variable) = arg.get_env() {
        line += &format!("  variable {}", variable.to_string_lossy());
    }
    if arg.is_global_set() {
        line += "  every command";
    }
    line
}

fn exit_codes(program: &str, codes: &[ExitCode], lines: &mut Vec<String>) {
    lines.push(String::new());
    for code in codes {
        let of = if code.commands.is_empty() { String::new() } else { format!("  only {}", code.commands.join(",")) };
        lines.push(format!("exit {program} {}{of}", code.code));
    }
}

/// Names of commands with JSON output, and the schema of each.
fn schemas() -> Vec<(String, Schema)> {
    let dir = root().join("etc/schemas");
    let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.strip_suffix(".json").unwrap_or_else(|| panic!("{name} is no schema")).to_owned())
        .collect();
    names.sort_unstable();
    names.into_iter().map(|name| (name.clone(), Schema::of(&name))).collect()
}

/// `shmctl` with the commands that are programs of their own, and `shmd`.
fn programs() -> [Command; 2] {
    let shmctl = Args::command().subcommands(shmctl_record::commands()).subcommand(shmctl_relay::command());
    [shmctl, shm_cli::Args::command()].map(|mut command| {
        command.build();
        command
    })
}

fn surface() -> String {
    let mut lines = Vec::new();
    for command in programs() {
        command_line(&command, &[], &mut lines);
    }
    exit_codes("shmctl", exit_code::CODES, &mut lines);
    exit_codes("shmctl doctor", exit_code::DOCTOR, &mut lines);
    exit_codes("shmctl relay", shmctl_relay::EXIT_CODES, &mut lines);
    exit_codes("shmd", shm_cli::EXIT_CODES, &mut lines);
    for (name, schema) in schemas() {
        lines.push(String::new());
        lines.push(format!("json {name}  {}", schema.id()));
        lines.extend(schema.fields().iter().map(|field| format!("json {name} {field}")));
    }
    HEAD.to_owned() + &lines.join("\n") + "\n"
}

/// The lines that only one of the texts has.
fn difference(written: &str, made: &str) -> String {
    let only = |these: &str, those: &str, mark: &str| -> String {
        let those: Vec<&str> = those.lines().collect();
        these.lines().filter(|line| !those.contains(line)).map(|line| format!("{mark} {line}\n")).collect()
    };
    only(written, made, "-") + &only(made, written, "+")
}

#[test]
fn the_surface_is_what_its_file_says() {
    let (path, made) = (root().join("etc/surface.txt"), surface());
    if std::env::var_os("SHMD_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "etc/surface.txt is out of date (- the file, + the programs):\n{}\nif that is meant, renew it: SHMD_BLESS=1 cargo test -p \
         shmctl --lib surface",
        difference(&written, &made)
    );
}

#[test]
fn every_command_with_json_has_a_schema_and_every_schema_a_command() {
    let [command, _] = programs();
    let names: Vec<String> = schemas().into_iter().map(|(name, _)| name).collect();
    for command in shown_commands(&command) {
        let has_json = command.get_arguments().any(|arg| arg.get_long() == Some("json"));
        let name = command.get_name().to_owned();
        assert!(
            !has_json || names.contains(&name),
            "shmctl {name} --json has no schema: write etc/schemas/{name}.json"
        );
    }
    for name in names {
        assert!(shown_commands(&command).any(|command| command.get_name() == name), "{name} is no command");
    }
}

#[test]
fn a_difference_has_the_lines_of_both_sides() {
    assert_eq!(difference("a\nb\nc\n", "a\nx\nc\n"), "- b\n+ x\n");
    assert_eq!(difference("a\n", "a\n"), "");
}

/// What the documents show to be typed: text in backticks, and lines behind a prompt.
fn typed(document: &str) -> Vec<String> {
    let mut typed = Vec::new();
    for (place, part) in document.split("```").enumerate() {
        if place % 2 == 1 {
            let lines = part.lines().filter_map(|line| line.strip_prefix("$ ").or(line.strip_prefix("# ")));
            typed.extend(lines.map(str::to_owned));
        } else {
            typed.extend(part.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    typed
}

/// Words that stand where only a command or an option may, and are none of the program's.
fn unknown_words(command: &Command, typed: &str) -> Vec<String> {
    let words = typed.split_whitespace().skip(1).take_while(|word| !word.starts_with(['<', '>', '|']));
    let (mut command, mut unknown) = (command, Vec::new());
    for word in words {
        let name = word.split('=').next().unwrap_or_default();
        let is_option = |arg: &Arg| match name.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => arg.get_short().is_some_and(|short| name == format!("-{short}")),
        };
        if word.starts_with('-') {
            unknown.extend((!command.get_arguments().any(is_option)).then(|| word.to_owned()));
        } else if let Some(chosen) = command.find_subcommand(word) {
            command = chosen;
        } else if !command.get_arguments().any(Arg::is_positional) && command.has_subcommands() && !is_value(word) {
            unknown.push(word.to_owned());
        }
    }
    unknown
}

/// A path behind an option of every command, or a placeholder.
fn is_value(word: &str) -> bool {
    word.starts_with('/') || word.chars().all(|c| c.is_ascii_uppercase())
}

#[test]
fn the_documents_name_only_commands_and_options_that_exist() {
    let programs = programs();
    let mut found = 0;
    for document in [
        "README.md",
        "CHANGELOG.md",
        "etc/MANUAL.md",
        "etc/OPERATIONS.md",
        "etc/RECORDING.md",
        "shm-proto/PERFORMANCE.md",
    ] {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for typed in typed(&text).iter().flat_map(|line| line.split(['|', ';', '&'])).map(str::trim) {
            for program in &programs {
                if typed.split_whitespace().next() == Some(program.get_name()) {
                    found += 1;
                    assert_eq!(unknown_words(program, typed), [""; 0], "{document}: {typed}");
                }
            }
        }
    }
    assert!(found > 80, "{found}");
    let unknown = |line: &str| unknown_words(&programs[0], line);
    assert_eq!(unknown("shmctl raed cam"), ["raed", "cam"]);
    assert_eq!(unknown("shmctl read cam --folow -n 5 > --file"), ["--folow"]);
    assert_eq!(unknown("shmctl --runtime-dir /run/x COMMAND --help"), [""; 0]);
}
