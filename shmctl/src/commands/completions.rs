//! `shmctl completions`: scripts for shells. They ask `shmctl complete`.

use clap::{Args as ClapArgs, ValueEnum};

use crate::error::Result;
use crate::output::print;

const EXAMPLES: &str = "\
The script completes the words of shmctl and of shmd: commands, options, their values, keys for --set, and, if the daemon answers, \
names of channels and numbers of readers. It runs shmctl, which must be in PATH.

Install:
  bash  the output as shmctl in /usr/share/bash-completion/completions, and a link to it named shmd
  zsh   the output as _shmctl in a directory of $fpath, such as /usr/share/zsh/vendor-completions
  fish  the output as shmctl.fish in /usr/share/fish/vendor_completions.d, and a link shmd.fish

Examples:
  source <(shmctl completions bash)      for this shell
  shmctl completions zsh >_shmctl
  shmctl completions fish >shmctl.fish";

/// Print a script that completes command lines in a shell.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell that reads the script.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    print(match args.shell {
        Shell::Bash => include_str!("completions/shmctl.bash"),
        Shell::Zsh => include_str!("completions/shmctl.zsh"),
        Shell::Fish => include_str!("completions/shmctl.fish"),
    })
}
