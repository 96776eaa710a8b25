//! `shmctl resize`: asks for another capacity.

use std::time::Duration;

use clap::Args as ClapArgs;
use shm_proto::internal::control::Resized;
use shm_proto::{Bytes, ChannelName, Done, Request};

use super::unexpected;
use crate::error::Result;
use crate::global::Global;
use crate::output::print;
use crate::target::Words;

/// Memory is reserved at some gigabytes per second; asking for more than fits into this is a mistake.
pub(super) const ANSWER: Duration = Duration::from_secs(300);

const EXAMPLES: &str = "\
Examples:
  shmctl resize 4MiB                       main: 1MiB -> 4MiB
  shmctl resize cam 1MiB
  shmctl resize --channel cam --bytes 1MiB

Readers and the writer go on, and nothing is lost. A smaller size takes effect when the readers have passed the memory that \
is given back; until then `shmctl stat` shows it as pending.";

/// Make a channel larger or smaller while messages flow.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The channel. Without one, the daemon's only channel, or that of --channel.
    #[arg(value_name = "CHANNEL")]
    first: Option<String>,
    /// The new capacity, as with --bytes.
    #[arg(value_name = "SIZE")]
    second: Option<String>,
    /// The new capacity: 4096, 64KiB, 1MiB, 2GiB (K, M and G mean 1024), rounded up to whole pages.
    #[arg(short, long, value_name = "SIZE")]
    bytes: Option<Bytes>,
}

impl Args {
    /// The channel, if it is an argument, and the capacity.
    pub(crate) fn wanted(&self) -> Result<(Option<ChannelName>, Bytes)> {
        let what = "a size: shmctl resize [CHANNEL] 4MiB, or --bytes 4MiB";
        let (first, second) = (self.first.as_deref(), self.second.as_deref());
        Words { what, first, second, option: ("--bytes", self.bytes) }.settle()
    }
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let (_, bytes) = args.wanted()?;
    let request = Request::Resize { channel: global.channel.clone(), bytes: bytes.get() };
    match global.ask_within(&request, ANSWER)? {
        Done::Resize(resized) => print(&told(&resized)),
        other => Err(unexpected("resize", &other)),
    }
}

/// What has become of the size.
pub(super) fn told(resized: &Resized) -> String {
    let Resized { channel, old, asked, new, pending, .. } = resized;
    let mut line = format!("{channel}: {} -> {}", Bytes(*old), Bytes(*new));
    if new != asked {
        line += &format!(" ({} rounded up to whole pages)", Bytes(*asked));
    }
    if *pending {
        line += ", pending: it takes effect when the readers have passed the memory to be given back";
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_size_are_told_and_what_is_still_to_come() {
        let mut resized = Resized::new("main".parse().unwrap());
        (resized.old, resized.asked, resized.new) = (1 << 20, 4 << 20, 4 << 20);
        assert_eq!(told(&resized), "main: 1MiB -> 4MiB\n");
        resized.asked = 5000;
        resized.new = 8192;
        assert_eq!(told(&resized), "main: 1MiB -> 8KiB (5000 rounded up to whole pages)\n");
        resized.pending = true;
        assert!(told(&resized).contains("pages), pending: it takes effect"));
    }
}
