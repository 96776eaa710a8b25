//! `shmctl stat`: everything about a channel, once or repeatedly.

mod block;
mod screen;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::{Done, ErrorKind, Request};

use super::{note_if_none, unexpected};
use crate::error::{Failure, Result};
use crate::global::Global;
use crate::human;
use crate::output::{has_gone, print, print_json, wait_for};
use crate::signals::Signals;
use crate::target::Target;
use crate::terminal::{size, stdout_columns};

const EXAMPLES: &str = "\
On a narrow terminal, shmctl shortens programs and users of readers, and then leaves out RECEIVED, SEEN, LOST, PID and USER, \
in this order. If --watch needs more rows than the terminal has, it shows one line per channel.

Examples:
  shmctl stat
  shmctl stat --watch                every second, until SIGINT
  shmctl stat cam --json | jq '.[0].readers[].lag_messages'";

/// Show capacity, use, rates, writer and readers of a channel, or of all channels.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print one line of JSON: an array with an object per channel. Sizes are in bytes, ages in milliseconds.
    #[arg(long)]
    json: bool,
    /// Repeat every SECONDS: in place on a terminal, otherwise one after the other.
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = human::interval)]
    watch: Option<Duration>,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    match args.watch {
        None => {
            let channels = ask(global)?;
            note_if_none(&channels);
            if args.json { print_json(&channels) } else { print(&blocks(&channels, stdout_columns())) }
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

/// Asks once more. `None`: the daemon is stopping, and a later request finds it gone.
fn ask_again(global: &Global, first: bool) -> Result<Option<Vec<ChannelStat>>> {
    match ask(global) {
        Err(Failure::Library(e)) if !first && e.refusal() == Some(ErrorKind::Busy) => Ok(None),
        answer => answer.map(Some),
    }
}

fn blocks(channels: &[ChannelStat], columns: Option<usize>) -> String {
    channels.iter().map(|channel| block::render(channel, columns)).collect::<Vec<_>>().join("\n")
}

fn watch(args: &Args, global: &Global, interval: Duration) -> Result<()> {
    let signals = Signals::catch()?;
    let stdout = io::stdout();
    let mut first = true;
    let mut drawn = None;
    let mut next = Instant::now();
    loop {
        if let Some(channels) = ask_again(global, first)? {
            match (args.json, size(&stdout)) {
                (true, _) => print_json(&channels)?,
                (false, Some(size)) => {
                    print(&screen::redraw(&screen::render(&channels, size), size, drawn != Some(size)))?;
                    drawn = Some(size);
                }
                (false, None) if first => print(&blocks(&channels, None))?,
                (false, None) => print(&format!("\n{}", blocks(&channels, None)))?,
            }
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
