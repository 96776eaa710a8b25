//! `shmctl stat`: everything about a channel, once or repeatedly.

mod block;
mod overview;
mod screen;
mod watch;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::{ChannelName, Client, Done, ErrorKind, Request};

use self::watch::Watch;
use super::{note_if_none, unexpected};
use crate::error::{Failure, Result};
use crate::global::{ANSWER, Global};
use crate::keyboard::Keyboard;
use crate::output::{has_gone, has_news, print, print_bytes, print_json, wait_for};
use crate::signals::Signals;
use crate::target::Target;
use crate::terminal::{Page, size};

const EXAMPLES: &str = "\
If there are several channels, each has one line, with its state: full (no room for another message of the usual size until the \
slowest reader goes on), failed or retrying (its source), stalled or evicted (its writer or a reader), or ok. The channel that \
the command names, or the only channel, has a block with everything.

On a narrow terminal, shmctl shortens names and leaves out, in this order, RECEIVED, SEEN, LOST, PID and USER of readers, or \
WRITER, CAPACITY, BYTES and READERS of channels. --watch shows as many lines as the terminal has. States that need attention are \
red or yellow on a terminal; NO_COLOR=1 turns colours off, and CLICOLOR_FORCE=1 turns them on everywhere.

Examples:
  shmctl stat
  shmctl stat --watch                every second, until q or SIGINT
  shmctl stat cam --watch 5          one channel, every 5 seconds
  shmctl stat cam --schema > cam.proto
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
    /// Print the text of the channel's schema, and nothing else.
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    schema: bool,
    /// Repeat every SECONDS, 1 if that is left out: in place on a terminal, otherwise one after the other. A word that is no time is
    /// the channel.
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    watch: Option<Watch>,
}

impl Args {
    /// The channel, if it is an argument or stands behind --watch.
    pub(crate) fn channels(&self) -> Result<Vec<ChannelName>> {
        watch::channel(self.watch.as_ref(), self.target.channels())
    }
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    match &args.watch {
        None if args.schema => schema(global),
        None => {
            let channels = ask(global)?;
            note_if_none(&channels);
            if args.json { print_json(&channels) } else { print(&shown(&channels, Page::stdout())) }
        }
        Some(watched) => watch(args, global, watched.interval()).map_err(|failure| watched.explain(failure)),
    }
}

fn schema(global: &Global) -> Result<()> {
    let mut client = Client::connect(&global.endpoint(), ANSWER)?;
    match client.schema(global.channel.clone())? {
        Some(text) => print_bytes(&text),
        None => {
            let channel =
                global.channel.as_ref().map_or_else(|| "the channel".to_owned(), |name| format!("channel {name}"));
            Err(Failure::Other(format!("{channel} declares no schema text (schema_text or schema_file in shmd.toml)")))
        }
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

/// The block of a channel, or a line for each of several.
fn shown(channels: &[ChannelStat], page: Page) -> String {
    match channels {
        [] => String::new(),
        [channel] => block::render(channel, page),
        _ => overview::render(channels, page),
    }
}

fn watch(args: &Args, global: &Global, interval: Duration) -> Result<()> {
    let signals = Signals::catch()?;
    let stdout = io::stdout();
    // Without a screen to look at, the keys are another program's.
    let keyboard = (!args.json && stdout.is_terminal()).then(Keyboard::open).flatten();
    let page = Page::stdout();
    let mut first = true;
    let mut drawn = None;
    let mut next = Instant::now();
    loop {
        if let Some(channels) = ask_again(global, first)? {
            match (args.json, size(&stdout)) {
                (true, _) => print_json(&channels)?,
                (false, Some(size)) => {
                    print(&screen::redraw(&screen::render(&channels, size, page.colour), size, drawn != Some(size)))?;
                    drawn = Some(size);
                }
                (false, None) if first => print(&shown(&channels, page))?,
                (false, None) => print(&format!("\n{}", shown(&channels, page)))?,
            }
        }
        first = false;
        // On schedule, without catching up on what was missed.
        next = (next + interval).max(Instant::now());
        while let left = next.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            let out = PollFd::new(stdout.as_fd(), PollFlags::empty());
            let mut fds = vec![out, PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(keyboard.as_ref().map(|keyboard| PollFd::new(keyboard.as_fd(), PollFlags::POLLIN)));
            wait_for(&mut fds, left)?;
            if has_gone(&fds[0]) {
                return Err(Failure::OutputClosed);
            }
            let pressed = fds.get(2).is_some_and(has_news);
            if signals.came() {
                return Ok(());
            }
            if pressed && let Some(keyboard) = &keyboard {
                match keyboard.pressed().as_slice() {
                    // The terminal is gone.
                    [] => return Ok(()),
                    keys if keys.iter().any(|key| matches!(key, b'q' | b'Q')) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}
