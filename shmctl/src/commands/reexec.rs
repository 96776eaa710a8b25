//! `shmctl reexec`: makes the daemon execute its file anew.

use std::time::Duration;

use clap::Args as ClapArgs;
use shm_proto::{Done, Request};

use super::unexpected;
use crate::error::Result;
use crate::global::Global;
use crate::human::printable;
use crate::output::{print, print_json};

/// The new program is asked first, the sources come to rest, and the channels are checked.
const ANSWER: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
The daemon executes the file that it was started from, which an upgrade has replaced. Process number, socket, configuration and \
channels stay. Attached readers and writers go on by themselves, and nothing that a source has read is lost. Nothing is changed if \
that file is missing, is not a shmd that understands the present channels, or refuses the configuration, and if the \
configuration has changes that a reload has not applied or cannot apply. The exit code is 78 for a mistake in the \
configuration.

Example:
  shmctl reexec";

/// Replace the running daemon's program by its file (root and the daemon's own user only).
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print one line of JSON: old, new (the versions), pid.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    match global.ask_within(&Request::Reexec, ANSWER)? {
        Done::Reexec(done) if args.json => print_json(&done),
        Done::Reexec(done) => {
            let (old, new) = (printable(&done.old), printable(&done.new));
            print(&format!("shmd {old} -> {new}, pid {}\n", done.pid))
        }
        other => Err(unexpected("reexec", &other)),
    }
}
