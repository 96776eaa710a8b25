//! `shmctl top`: everything that happens, as it happens, and who is to blame.
//!
//! | module | what it is |
//! |---|---|
//! | `link` | asks the daemon, and never waits for it |
//! | `figures`, `unread` | what follows from the answers: rates, ages, who holds whom up |
//! | `control`, `keys` | what the person has chosen: from a state and a key to the next state |
//! | `view` | from all of this to lines in a buffer |
//! | `ansi`, `screen` | the buffer on the terminal, and the terminal given back |
//! | `json` | the same for programs |
//! | `live` | the loop around them |

mod ansi;
mod control;
mod figures;
mod json;
mod keys;
mod link;
mod live;
mod screen;
mod unread;
mod view;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use clap::Args as ClapArgs;
use nix::poll::{PollFd, PollFlags};

use self::control::Control;
use self::figures::Figures;
use self::link::Observer;
use self::live::{Live, take};
use self::view::Status;
use super::note_if_none;
use crate::error::{Failure, Result};
use crate::global::Global;
use crate::human;
use crate::output::{print, print_json, wait_for};
use crate::signals::Signals;
use crate::target::Target;
use crate::terminal::Page;

const EXAMPLES: &str = "\
Keys:
  q                  quit
  up, down           choose a channel; k and j do the same
  left, right        choose one of its readers; h and l do the same
  s                  sort by name, state, rate, fill level or lag
  p                  pause, and go on
  r                  resize the channel, after a question
  e                  evict the reader, after a question

Rates are differences of counters over the time that was measured between two looks at the daemon. HELD UP BY names the \
reader that keeps the channel full, and says for how long. OLDEST is the age of the reader's oldest unread message; \">3.0s\" means \
more than that, in a channel without timestamps = true. Times of operations are UTC. NO_COLOR=1 turns colours off.

If the daemon ends, the view waits for the next one.

Examples:
  shmctl top
  shmctl top cam --interval 250ms
  shmctl top --once
  shmctl top --once --json | jq -r '.channels[].held_up.what // empty'";

/// Watch channels, readers and operations, and act on them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The time between two looks at the daemon, in seconds or with a unit.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = human::interval)]
    interval: Duration,
    /// Print the view once, after two looks.
    #[arg(long)]
    once: bool,
    /// With --once: print one line of JSON, an object with the channels of stat --json, what two looks tell, and operations.
    #[arg(long, requires = "once")]
    json: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let observer = Observer::new(global.endpoint(), global.channel.clone());
    if args.once {
        return once(args, observer);
    }
    for (is_terminal, what) in [(io::stdout().is_terminal(), "output"), (io::stdin().is_terminal(), "input")] {
        if !is_terminal {
            let instead = "write shmctl top --once for text, or shmctl top --once --json for programs";
            return Err(Failure::Usage(format!("standard {what} is not a terminal: {instead}")));
        }
    }
    Live::new(global.endpoint(), observer, args.interval).run(Page::stdout().colour)
}

fn once(args: &Args, mut observer: Observer) -> Result<()> {
    let (mut figures, mut status) =
        (Figures::new(Instant::now()), Status { interval: args.interval, ..Status::default() });
    let signals = Signals::catch()?;
    for pause in [args.interval, Duration::ZERO] {
        observer.look(&signals, |news| take(news, &mut figures, &mut status))?;
        wait_for(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], pause)?;
        if signals.came() {
            return Ok(());
        }
    }
    if args.json {
        note_if_none(&figures.channels);
        return print_json(&json::document(&figures)?);
    }
    let page = Page::stdout();
    let width = page.columns.and_then(|columns| u16::try_from(columns).ok()).unwrap_or(80);
    print(&view::text(&figures, &Control::default(), &status, width, page.colour))
}
