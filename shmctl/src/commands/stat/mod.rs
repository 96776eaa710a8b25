//! `shmctl stat`: everything about a channel, once or again and again.

mod block;

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use nix::poll::{PollFd, PollFlags};
use shm_proto::control::{Done, Request};
use shm_proto::stat::ChannelStat;

use super::{note_if_none, unexpected};
use crate::args::Global;
use crate::error::{Failure, Result};
use crate::human;
use crate::output::{has_gone, print, print_json, wait_for};
use crate::signals::Signals;

const EXAMPLES: &str = "\
Examples:
  shmctl stat
  shmctl stat --watch                every second, until SIGINT
  shmctl stat --channel cam --json | jq '.[0].readers[].lag_messages'";

/// Show a channel's capacity, use, rates, writer and readers; of all channels when none is named.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// One line of JSON, an array with an object for each channel; sizes in bytes, ages in milliseconds.
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds: in place on a terminal, else one after the other.
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = human::interval)]
    watch: Option<Duration>,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    match args.watch {
        None => {
            let channels = ask(global)?;
            note_if_none(&channels);
            if args.json { print_json(&channels) } else { print(&blocks(&channels)) }
        }
        Some(interval) => watch(args, global, interval),
    }
}

fn ask(global: &Global) -> Result<Vec<ChannelStat>> {
    match global.ask(&Request::Stat { channel: global.channel.clone() })? {
        Done::Stat(channels) => Ok(channels),
        other => Err(unexpected("stat", &other)),
    }
}

fn blocks(channels: &[ChannelStat]) -> String {
    channels.iter().map(block::render).collect::<Vec<_>>().join("\n")
}

fn watch(args: &Args, global: &Global, interval: Duration) -> Result<()> {
    let signals = Signals::catch()?;
    let stdout = io::stdout();
    let in_place = stdout.is_terminal();
    let mut first = true;
    let mut next = Instant::now();
    loop {
        let channels = ask(global)?;
        match (args.json, in_place) {
            (true, _) => print_json(&channels)?,
            (false, true) => print(&redraw(&blocks(&channels), first))?,
            (false, false) if first => print(&blocks(&channels))?,
            (false, false) => print(&format!("\n{}", blocks(&channels)))?,
        }
        first = false;
        // On schedule, without catching up on what was missed.
        next = (next + interval).max(Instant::now());
        while let left = next.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            let out = PollFd::new(stdout.as_fd(), PollFlags::empty());
            let mut fds = [out, PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            wait_for(&mut fds, left)?;
            if has_gone(&fds[0]) {
                return Err(Failure::OutputClosed);
            }
            if signals.came() {
                return Ok(());
            }
        }
    }
}

/// The text from the terminal's upper left corner, with the rest of each line and of the screen cleared.
fn redraw(text: &str, first: bool) -> String {
    let mut screen = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    for line in text.lines() {
        let _ = writeln!(screen, "{line}\x1b[K");
    }
    screen + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redraw_leaves_nothing_of_the_last_one() {
        assert_eq!(redraw("a\nbc\n", false), "\x1b[Ha\x1b[K\nbc\x1b[K\n\x1b[J");
        assert!(redraw("", true).starts_with("\x1b[2J"));
    }
}
