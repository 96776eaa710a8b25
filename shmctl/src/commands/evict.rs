//! `shmctl evict`: detaches a reader.

use clap::Args as ClapArgs;
use shm_proto::{Done, Request};

use super::unexpected;
use crate::error::Result;
use crate::global::Global;
use crate::output::print;

const EXAMPLES: &str = "\
Example:
  shmctl stat                  shows the readers' numbers
  shmctl evict --reader 3      detaches reader 3, which may attach again";

/// Detach a reader that holds a channel up.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The reader's number, as `shmctl stat` shows it.
    #[arg(short, long, value_name = "NUMBER")]
    reader: u32,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    match global.ask(&Request::Evict { channel: global.channel.clone(), reader: args.reader })? {
        Done::Evict {} => match &global.channel {
            Some(channel) => print(&format!("{channel}: reader {} evicted\n", args.reader)),
            None => print(&format!("reader {} evicted\n", args.reader)),
        },
        other => Err(unexpected("evict", &other)),
    }
}
