//! `shmctl remove`: removes a channel that was made at run time.

use clap::Args as ClapArgs;
use shm_proto::{Done, Request};

use super::create::named;
use super::unexpected;
use crate::error::Result;
use crate::global::Global;
use crate::output::print;
use crate::target::Target;

const EXAMPLES: &str = "\
Readers are told, and end with exit code 0; the writer loses its role. The command ends when the memory is free. Whoever created \
the channel may remove it, and so may those whom its admin list names, root and the daemon's own user. A channel of the \
configuration is removed by taking it out of the file and running shmctl reload.

Example:
  shmctl remove cam";

/// Remove a channel that was created while the daemon ran.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
}

pub(crate) fn run(_: &Args, global: &Global) -> Result<()> {
    let channel = named(global, "remove")?;
    match global.ask(&Request::Remove { channel: channel.clone() })? {
        Done::Remove {} => print(&format!("{channel}: removed\n")),
        other => Err(unexpected("remove", &other)),
    }
}
