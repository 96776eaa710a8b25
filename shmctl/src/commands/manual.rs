//! `shmctl manual`: the manual pages of both programs, from the tables that also make their `--help`.

mod configuration;
mod daemon;
mod help;
mod markup;
mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{Args as ClapArgs, Command};

use self::page::Page;
use crate::error::{Failure, Result, note};
use crate::output::print;
use crate::programs::{self, MANUAL};

const EXAMPLES: &str = "\
The pages are shmctl(1), one for each command, such as shmctl-read(1), shmd(8) and shmd.toml(5). Commands that are \
programs of their own, such as record, have one if they are installed.

Examples:
  shmctl manual                          the pages that there are
  shmctl manual shmd.toml.5 | man -l -
  shmctl manual --output man             man/man1/shmctl.1, man/man8/shmd.8 and so on";

/// Print a manual page, or write all of them to a directory.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The page, such as shmctl-read.1, for man(1). Without it, print the names of the pages.
    #[arg(value_name = "PAGE", conflicts_with = "output")]
    page: Option<String>,
    /// Write all pages below this directory: in man1, man5 and man8, as MANPATH has them.
    #[arg(short, long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, shmctl: Command) -> Result<()> {
    let installed = programs::ours();
    let others: Vec<_> = installed.iter().filter_map(|(name, _)| Some((*name, programs::about(name)?))).collect();
    let mut pages = pages(shmctl, &others);
    for (command, program) in installed {
        match page_of_program(command, &program) {
            Ok(page) => pages.push(page),
            // The other pages do not need it.
            Err(failure) => note(&failure.to_string()),
        }
    }
    if let Some(dir) = &args.output {
        return pages.iter().try_for_each(|page| write(dir, page));
    }
    let Some(wanted) = &args.page else {
        return print(&pages.iter().map(|page| page.file() + "\n").collect::<String>());
    };
    match pages.into_iter().find(|page| page.file() == *wanted || page.name() == *wanted) {
        Some(page) => print(&page.into_roff()),
        None => Err(Failure::Usage(format!("there is no manual page {wanted}; `shmctl manual` prints their names"))),
    }
}

/// Prints the page of a command that is a program of its own.
pub(crate) fn print_page(mut command: Command) -> Result<()> {
    command.build();
    print(&page::of_command(&command).into_roff())
}

/// The page that a program prints.
fn page_of_program(command: &str, program: &Path) -> Result<Page> {
    let failed = |why: String| Failure::Other(format!("cannot ask {} for its manual page: {why}", program.display()));
    let output = Process::new(program).arg(MANUAL).output().map_err(|e| failed(e.to_string()))?;
    match String::from_utf8(output.stdout) {
        Ok(text) if output.status.success() && !text.is_empty() => {
            Ok(Page::ready(&format!("shmctl-{command}"), 1, text))
        }
        _ => Err(failed(format!("it ended with {}; it may be of another version", output.status))),
    }
}

/// Every page of `shmctl` itself and of the daemon. `others`: commands that have pages of their own, and what they do.
fn pages(mut shmctl: Command, others: &[(&str, &str)]) -> Vec<Page> {
    shmctl.build();
    let shown = shmctl.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    let mut pages = vec![page::of_program(&shmctl, others)];
    pages.extend(shown.map(page::of_command));
    pages.extend([daemon::page(), configuration::page()]);
    pages
}

fn write(dir: &Path, page: &Page) -> Result<()> {
    let dir = dir.join(format!("man{}", page.section()));
    let file = dir.join(page.file());
    let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, page.clone().into_roff()));
    written.map_err(|e| Failure::Other(format!("cannot write {}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_a_page_with_its_options_and_without_hidden_ones() {
        let read = crate::commands::read::Args::augment_args(Command::new("read").about("Write messages."));
        let shmctl =
            Command::new("shmctl").about("Reads.").subcommand(read).subcommand(Command::new("secret").hide(true));
        let pages = pages(shmctl, &[("fly", "Leave the ground")]);
        let names: Vec<String> = pages.iter().map(Page::file).collect();
        assert_eq!(names, ["shmctl.1", "shmctl-read.1", "shmd.8", "shmd.toml.5"]);
        let all = pages[0].clone().into_roff();
        assert!(
            all.contains("shmctl\\-read") && all.contains("shmctl\\-fly") && all.contains("Leave the ground"),
            "{all}"
        );
        let read = pages[1].clone().into_roff();
        for part in [".TH SHMCTL\\-READ 1 ", "shmctl\\-read \\- ", "\\-\\-until\\-empty", ".SH EXAMPLES", ".SH FORMATS"]
        {
            assert!(read.contains(part), "{part} is not in\n{read}");
        }
        assert!(pages[2].clone().into_roff().contains("\\-\\-daemonize"));
        assert!(!pages[2].clone().into_roff().contains("finish"));
        assert!(pages[3].clone().into_roff().contains("wait_readers"));
    }
}
