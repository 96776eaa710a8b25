//! Variables of the environment that stand for options.

use clap::builder::Resettable;
use clap::{Arg, Command};

/// The command line, in which an empty variable counts as none: that is how a unit file or a shell takes a setting back.
#[must_use]
pub fn without_empty_variables(mut command: Command) -> Command {
    let is_empty = |arg: &&Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let ids: Vec<_> = command.get_arguments().filter(is_empty).map(|arg| arg.get_id().clone()).collect();
    for id in ids {
        command = command.mut_arg(id, |arg| arg.env(Resettable::Reset));
    }
    command.mut_subcommands(without_empty_variables)
}
