//! `shmctl replay`: messages of MCAP files into channels.

mod batch;
mod create;
mod merge;
mod publish;
mod schedule;
mod source;
mod topics;
mod when;

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use shm_proto::Bytes;
use shmctl::companion::{Failure, Global, Result, Signals, human, note};

use self::create::Key;
use self::publish::{Published, Publisher};
use self::schedule::{Schedule, Speed};
use self::source::{Plan, Source};
use self::topics::{Mapping, Topics};
use self::when::{Range, When};
use crate::format::input::{Input, Unreadable};
use crate::format::memory::{self, Memory};

const EXAMPLES: &str = "\
The messages of each topic go to the channel of the same name, or to the one that --map names. The command borrows the \
role of the channels' writers. A channel that is not there is an error, unless --create makes it, with what the file says about its \
content and with the on_full that it had. Messages keep the distances in time that they have in the file. While a lossless channel is \
full, the command waits for its readers, and is late with the messages after that.

Several files are published one after the other, in the order of their times: the parts of a recording, for example.

SIGINT and SIGTERM end the command with 0. It says on standard error how many messages were published, and how late.

Examples:
  shmctl replay run.mcap
  shmctl replay all-*.mcap                         all parts of a recording
  shmctl replay cam.mcap --map cam=cam2 --create   into a new channel
  shmctl replay run.mcap --from 10s --to 20s       ten seconds of it
  shmctl replay run.mcap --speed max               as fast as the readers allow
  shmctl replay run.mcap --speed 0.5 --loop        slowly, again and again";

/// Publish the messages of MCAP files again.
#[derive(Debug, Parser)]
#[command(name = "shmctl-replay", bin_name = "shmctl replay", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// The files.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// How fast: 2 is twice as fast as recorded, max as fast as the readers allow.
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    speed: Speed,
    /// Begin again after the end: COUNT times in all, or without end.
    #[arg(long = "loop", value_name = "COUNT", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    passes: Option<u64>,
    /// Publish the messages of TOPIC to CHANNEL. May be given for each topic.
    #[arg(long, value_name = "TOPIC=CHANNEL")]
    map: Vec<Mapping>,
    /// Publish only the messages of this topic. May be given several times.
    #[arg(long, value_name = "TOPIC")]
    only: Vec<String>,
    /// Begin here: an offset from the first message, such as 10s or 1.5, or a date, such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "WHEN")]
    from: Option<When>,
    /// End before this moment, given in the same way.
    #[arg(long, value_name = "WHEN")]
    to: Option<When>,
    /// Make channels that are not there. They go when the daemon is stopped.
    #[arg(long)]
    create: bool,
    /// Set a key of the channels that are made, such as --set max=64MiB. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", requires = "create")]
    set: Vec<Key>,
    /// Most memory for the files' summaries, for chunks, of which several are needed at once if their times overlap, and for messages
    /// on their way to the channels. A file that needs more is refused: it may be damaged, or made to fill the memory. The default is
    /// enough for recordings of shmctl record without messages of more than 1GiB.
    #[arg(long, value_name = "SIZE", default_value_t = memory::USUAL, value_parser = memory::parse)]
    memory: Bytes,
    #[command(flatten)]
    pub(crate) global: Global,
}

pub(crate) fn run(args: Args) -> Result<()> {
    args.global.one()?;
    let signals = Signals::catch()?;
    let (mut inputs, mut memory) = (Vec::new(), Memory::new(args.memory));
    for path in &args.files {
        let input = open(path, memory)?;
        memory = memory.with(input.held);
        inputs.push(input);
    }
    inputs.sort_by_key(|input| input.times().unwrap_or_default());
    let first = inputs.iter().filter_map(Input::times).map(|(first, _)| first).min().unwrap_or(0);
    let range = Range::new(first, args.from, args.to)?;
    let topics =
        Topics::new(&inputs, &args.map, &args.only, args.global.channel.as_ref().filter(|_| args.global.is_given))?;
    let keys = if args.create { Some(create::keys(&inputs, &topics, &args.set)?) } else { None };
    let mut publisher = Publisher::attach(&args.global, &topics, keys.as_deref(), &signals)?;
    let passes = match args.passes {
        None => Some(1),
        Some(0) => None,
        passes => passes,
    };
    let begun = Instant::now();
    let mut source = Source::start(Plan { inputs, topics, range, passes, memory })?;
    let result = publisher.run(&mut source, Schedule::new(args.speed), &signals);
    let published = publisher.published();
    tell(&published, begun.elapsed());
    result
}

fn open(path: &std::path::Path, memory: Memory) -> Result<Input> {
    let shown = path.display();
    Input::open(path, memory).map_err(|why| {
        Failure::Other(match why {
            Unreadable::Io(error) => format!("cannot read {shown}: {error}"),
            Unreadable::Foreign(why) => format!("{shown} is no MCAP file: {why}"),
            Unreadable::Unfinished(why) => format!(
                "{shown}: {why}; its recording was interrupted, or is still going on. After an interruption, repair the file with: \
                 shmctl record --recover {shown}"
            ),
            Unreadable::Unindexed(count) => format!(
                "{shown}: there is no index of chunks for its {}; if its messages are in chunks, write a copy with an index with: \
                 shmctl record --recover {shown} --output NEW. Messages outside of chunks cannot be published",
                human::counted(count, "message", "s")
            ),
            Unreadable::Large(why) => format!("{shown}: {why}"),
            Unreadable::Damaged(why) => {
                format!("{shown} is damaged: {why}; write what can be read with: shmctl record --recover {shown} --output NEW")
            }
        })
    })
}

fn tell(published: &Published, elapsed: std::time::Duration) {
    let mut told = format!("published {}", human::carried(published.messages, published.bytes, elapsed));
    if published.dropped > 0 {
        told += &format!("; {} because a channel was full", human::messages(published.dropped, "dropped"));
    }
    if let Some((p99, most)) = published.late_ns {
        told += &format!("; 99% of them no later than {}, all within {}", human::nanos(p99), human::nanos(most));
    }
    note(&told);
}
