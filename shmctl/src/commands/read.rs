//! `shmctl read`: messages to standard output.

mod format;
mod handoff;
mod losses;
mod session;
mod writer_watch;

use std::time::Duration;

use clap::Args as ClapArgs;
use clap::ValueEnum;
use shm_proto::{Follower, Start, WaitStrategy};

pub(crate) use self::format::Format;
use self::session::Session;
use super::handoff::Objects;
use crate::error::Result;
use crate::global::Global;
use crate::human;
use crate::target::Target;

const EXAMPLES: &str = "\
Examples:
  shmctl read                             messages published from now on, one per line
  shmctl read cam                         those of channel cam
  shmctl read --from oldest -n 10         the ten oldest messages that are still there
  shmctl read --follow --format raw | ffmpeg -i - out.mp4
  shmctl read --format json --timeout 5s | jq .seq
  shmctl read --handoff --segment /demo_shm --avail /sem_avail --done /sem_done
                                          messages from a C program, without a daemon

JSON has one object per line: {\"seq\":7,\"lost\":0,\"len\":2,\"data\":\"hi\"}. If the bytes are not UTF-8, \"hex\" replaces \"data\" and has \
them in hexadecimal. \"lost\" counts the messages lost just before this one.

The command ends with 0 after COUNT messages, at SIGINT or SIGTERM, when the channel is closed, and when the output is \
closed. Without --follow, an eviction ends it with 1. If the daemon vanishes, the command reads everything that can still be \
read and ends with 69.";

/// Write a channel's messages to standard output.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// End after COUNT messages.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// Attach again after an eviction or a restart of the daemon, and wait for a daemon that is not there yet.
    #[arg(short, long)]
    follow: bool,
    /// Where to start. A handoff channel has only the message that is on offer.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = From::New, conflicts_with = "handoff")]
    from: From,
    /// End with exit code 75 if no message arrives within this time: seconds, or 500ms, 30s, 5m.
    #[arg(short, long, value_name = "TIME", value_parser = human::duration)]
    timeout: Option<Duration>,
    /// How to wait for messages: adaptive, sleep (the least processor time), or spin=50us (the least latency: looks for up to
    /// that time before each sleep). A handoff channel's reader always sleeps.
    #[arg(long, value_name = "HOW", default_value_t = WaitStrategy::Adaptive, conflicts_with = "handoff")]
    wait: WaitStrategy,
    /// The format of the output.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Lines)]
    format: Format,
    #[command(flatten)]
    objects: Objects,
}

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// At the oldest message that is still whole.
    Oldest,
    /// At the first message published after attaching.
    New,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<()> {
    let start = match args.from {
        From::Oldest => Start::Oldest,
        From::New => Start::New,
    };
    let names = args.objects.names()?;
    let session = Session::new(&args, global)?;
    if let Some(names) = names {
        return session.run(|session| session.take_from(&names, args.follow));
    }
    let mut follower =
        Follower::new(global.endpoint(), global.channel.as_deref(), start)?.with_wait_strategy(args.wait);
    if !args.follow {
        follower = follower.once();
    }
    session.run(|session| session.follow(&mut follower))
}
