//! `shmctl read`: messages to standard output.

mod about;
mod format;
mod handoff;
mod hexdump;
mod losses;
mod pace;
mod session;
mod stream;
mod template;
mod writer_watch;

use std::time::Duration;

use clap::Args as ClapArgs;
use clap::ValueEnum;
use shm_proto::{ChannelName, Expected, Follower, Start, WaitStrategy};

use self::format::Format;
use self::session::Session;
use self::stream::{Stream, Streams};
use super::handoff::Objects;
use crate::error::Result;
use crate::global::Global;
use crate::human;

const EXAMPLES: &str = "\
Examples:
  shmctl read                             messages published from now on, one per line
  shmctl read cam imu                     those of two channels, as they arrive: `cam: hello`
  shmctl read --from oldest -n 10         the ten oldest messages that are still there
  shmctl read --last 10                   the last ten messages that are there, and then new ones
  shmctl read cam --format length --from oldest --until-empty > saved
  shmctl write cam --framing length < saved
                                          saves the messages that are there, and writes them back
  shmctl read --format '{seq} {len} {text}' --grep error
  shmctl read --follow --format raw | ffmpeg -i - out.mp4
  shmctl read --format json --timeout 5s | jq .seq
  shmctl read telemetry --expect json | jq .temperature
  shmctl read --handoff --segment /demo_shm --avail /sem_avail --done /sem_done
                                          messages from a C program, without a daemon

Formats:
  lines    the bytes and a newline
  raw      the bytes, and nothing between messages
  hex      a line of hexadecimal digits
  hexdump  a line with number and length, then offsets, bytes and text as hexdump -C has them
  json     {\"seq\":7,\"lost\":0,\"len\":2,\"data\":\"hi\"}: one object per line. If the bytes are not
           UTF-8, \"hex\" replaces \"data\" and has them in hexadecimal. \"lost\" counts the messages lost
           just before this one. In a channel with publish times there is \"time\", too
  length   the length in 4 bytes, little-endian, and the bytes: what `shmctl write --framing length`
           takes
  '{…}'    any text with a field in braces is a template for a line per message. The fields are
           {seq}, {time}, {lost}, {len}, {text} (bytes that are not UTF-8 become U+FFFD), {hex} and
           {channel}; {{ and }} are the braces themselves

With several channels, lines, hex and hexdump begin with the channel's name, and JSON has \"channel\". raw and length cannot show \
the channel, and are refused. A channel that is closed ends only its own messages. If the user is evicted from a channel or its \
daemon vanishes, the command goes on with the others, and the exit code shows the first such failure in the end.

The command ends with 0 after COUNT messages, at SIGINT or SIGTERM, when all its channels are closed, and when the output is \
closed. Without --follow, an eviction ends it with 1. If the daemon vanishes, the command reads everything that can still be \
read and ends with 69.";

/// Write the messages of channels to standard output.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The channel, as with --channel, or several channels.
    #[arg(value_name = "CHANNEL", conflicts_with = "handoff")]
    channels: Vec<ChannelName>,
    /// End after COUNT messages, of all channels together.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// Attach again after an eviction or a restart of the daemon, and wait for a daemon that is not there yet.
    #[arg(short, long)]
    follow: bool,
    /// Where to start. A handoff channel has only the message that is on offer.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = From::New, conflicts_with = "handoff")]
    from: From,
    /// Start with the last COUNT messages that are there, and go on with new ones. With --grep, the last COUNT that contain TEXT.
    /// The messages are copied into the memory of this command first.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["from", "handoff"])]
    last: Option<usize>,
    /// Start with the messages of this time before now: 10s, 5m. The channel needs publish times (timestamps = true).
    #[arg(long, value_name = "TIME", value_parser = human::duration, conflicts_with_all = ["from", "last", "handoff"])]
    since: Option<Duration>,
    /// End with 0 when there is no further message now. A handoff channel offers its next message a moment after the last one was
    /// acknowledged, so this may end with messages left there.
    #[arg(long, conflicts_with = "timeout")]
    until_empty: bool,
    /// End with exit code 75 if no message arrives within this time: seconds, or 500ms, 30s, 5m. With --grep, only messages that
    /// contain TEXT count.
    #[arg(short, long, value_name = "TIME", value_parser = human::duration)]
    timeout: Option<Duration>,
    /// How to wait for messages: adaptive, sleep (the least processor time), or spin=50us (the least latency: looks for up to
    /// that time before each sleep). A handoff channel's reader always sleeps.
    #[arg(long, value_name = "HOW", default_value_t = WaitStrategy::Adaptive, conflicts_with = "handoff")]
    wait: WaitStrategy,
    /// The format of the output: lines, raw, hex, hexdump, json, length, or a template such as '{seq} {text}'; see below.
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Lines)]
    format: Format,
    /// Write only messages that contain these bytes. "lost" does not count the others.
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Write at most NUMBER messages per second. The others wait in the ring: if the channel must not lose messages, the writer waits,
    /// too, and the reader is evicted if it passes no message for the channel's evict_after.
    #[arg(long, value_name = "NUMBER", value_parser = pace::rate)]
    rate: Option<f64>,
    /// Read only a channel whose configuration declares this content: an encoding, and after a colon the name of a schema, such as
    /// json or protobuf:telemetry.Frame. Any other channel is refused, with both names.
    #[arg(long, value_name = "TYPE[:SCHEMA]", conflicts_with = "handoff")]
    expect: Option<Expected>,
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

impl Args {
    /// The channels among the arguments.
    pub(crate) fn channels(&self) -> Vec<ChannelName> {
        self.channels.clone()
    }

    fn start(&self) -> (Start, Option<usize>) {
        match (self.last, self.from) {
            (None, _) if self.since.is_some() => (Start::Oldest, None),
            (Some(0), _) | (None, From::New) => (Start::New, None),
            (last, _) => (Start::Oldest, last),
        }
    }

    fn stream(&self, global: &Global, channel: Option<&ChannelName>) -> Result<Stream> {
        let (start, last) = self.start();
        let endpoint = global.endpoint_expecting(self.expect.as_ref());
        let mut follower =
            Follower::new(endpoint, channel.map(ChannelName::as_str), start)?.with_wait_strategy(self.wait);
        if !self.follow {
            follower = follower.once();
        }
        Ok(Stream::new(follower, channel.cloned(), last))
    }
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let channels = global.channels();
    let names = args.objects.names(global)?;
    let session = Session::new(args, channels)?;
    if let Some(names) = names {
        return session.run(&mut (), |session, ()| session.take_from(&names, args.follow), |()| 0);
    }
    let streams = match channels {
        [] => vec![args.stream(global, None)?],
        named => named.iter().map(|name| args.stream(global, Some(name))).collect::<Result<_>>()?,
    };
    let mut streams = Streams::new(streams);
    session.run(&mut streams, Session::follow, |streams| {
        streams.tell_losses();
        streams.lost()
    })
}
