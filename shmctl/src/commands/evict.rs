//! `shmctl evict`: detaches a reader.

use clap::Args as ClapArgs;
use shm_proto::{ChannelName, Done, Request};

use super::unexpected;
use crate::error::Result;
use crate::global::Global;
use crate::output::print;
use crate::target::Words;

const EXAMPLES: &str = "\
Example:
  shmctl stat                  shows the readers' numbers
  shmctl evict cam 3           detaches reader 3 of channel cam, which may attach again
  shmctl evict --reader 3      the same, if the daemon has one channel";

/// Detach a reader that holds a channel up.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The channel. Without one, the daemon's only channel, or that of --channel.
    #[arg(value_name = "CHANNEL")]
    first: Option<String>,
    /// The reader's number, as with --reader.
    #[arg(value_name = "READER")]
    second: Option<String>,
    /// The reader's number, as `shmctl stat` shows it.
    #[arg(short, long, value_name = "NUMBER")]
    reader: Option<u32>,
}

impl Args {
    /// The channel, if it is an argument, and the reader.
    pub(crate) fn wanted(&self) -> Result<(Option<ChannelName>, u32)> {
        let what = "a reader's number: shmctl evict [CHANNEL] 3, or --reader 3";
        let (first, second) = (self.first.as_deref(), self.second.as_deref());
        Words { what, first, second, option: ("--reader", self.reader) }.settle()
    }
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let (_, reader) = args.wanted()?;
    match global.ask(&Request::Evict { channel: global.channel.clone(), reader })? {
        Done::Evict {} => print(&told(global.channel.as_ref(), reader)),
        other => Err(unexpected("evict", &other)),
    }
}

/// What has become of the reader.
pub(super) fn told(channel: Option<&ChannelName>, reader: u32) -> String {
    match channel {
        Some(channel) => format!("{channel}: reader {reader} evicted\n"),
        None => format!("reader {reader} evicted\n"),
    }
}
