//! `shmctl record`: the messages of channels to MCAP files.

mod announced;
mod chunk;
mod content;
mod depot;
mod file;
mod files;
mod monitor;
mod pipeline;
mod receiver;
mod recover;
mod sink;
mod split;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use shm_proto::internal::control::stat::{Mode, Right};
use shm_proto::{Bytes, ChannelName, Done, Request, Start};
use shmctl::companion::{Failure, Global, Result, Signals, human, note};
use signal_hook::consts::SIGXFSZ;

use self::content::{Declared, Encoding, SchemaFile};
use self::files::{Files, Summary};
use self::monitor::{Monitor, Watched};
use self::pipeline::Pipeline;
use self::receiver::{Receiver, Stop};
use self::sink::Sink;
use self::split::{Limit, Names, Split};
use self::stream::Stream;
use crate::format::memory;
use crate::format::packing::Compression;

const EXAMPLES: &str = "\
The recorder is a reader as any other: it receives every message once and in order. If the disk is slower than the writer, the \
channel fills: a lossless channel then makes its writer wait, and evicts the recorder after its evict_after. The recorder warns \
when it is far behind, attaches again after an eviction, and notes in the file which messages are missing.

SIGINT, SIGTERM, SIGHUP (the terminal or the ssh session is closed), --duration and the end of all channels end the command with 0: \
everything that was published before is in the files. Under nohup, SIGHUP is ignored. If the disk is full, the file is ended behind \
the last chunk that fits, standard error says which messages are missing, and the command ends with 1. After a SIGKILL, --recover gives \
the file its end: at most the messages of the last second are missing, and what was waiting for the disk.

etc/RECORDING.md describes the files.

Examples:
  shmctl record -o run.mcap                        the only channel, until SIGINT
  shmctl record -o two.mcap cam imu --duration 10m
  shmctl record -o all.mcap --all --split 1GiB     all-00001.mcap, all-00002.mcap, ...
  shmctl record -o small.mcap --compression zstd --threads 4
  shmctl record -o imu.mcap imu --schema imu=Imu:imu.json
  shmctl record --recover run.mcap                 after the recorder was killed
  shmctl replay run.mcap                           publishes the messages again";

/// Write the messages of channels to an MCAP file.
#[derive(Debug, Parser)]
#[command(name = "shmctl-record", bin_name = "shmctl record", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// The channels. Not needed if the daemon has exactly one.
    #[arg(value_name = "CHANNEL")]
    channels: Vec<ChannelName>,
    /// The file. It must not be there yet.
    #[arg(short, long, value_name = "FILE", required_unless_present = "recover")]
    output: Option<PathBuf>,
    /// Record every ring channel that this user may read.
    #[arg(long, conflicts_with = "channels")]
    all: bool,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
    /// Where to start.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = From::New)]
    from: From,
    /// End after COUNT messages, of all channels together.
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,
    /// End after this time: seconds, or 500ms, 30s, 10m.
    #[arg(long, value_name = "TIME", value_parser = human::duration)]
    duration: Option<Duration>,
    /// Go on after a restart of the daemon, and wait for a daemon or a channel that is not there yet.
    #[arg(short, long)]
    follow: bool,
    /// Go on in another file before a file has more than this size, or after this time: 1GiB, 10min. May be given for both.
    #[arg(long, value_name = "SIZE|TIME")]
    split: Vec<Limit>,
    /// How chunks are compressed.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// The level of zstd: 1 is the fastest, 19 the smallest.
    #[arg(long, value_name = "LEVEL", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// The number of threads that compress.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Bytes of messages in a chunk, after which the next chunk begins. A message is never split.
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(Bytes::MIB), value_parser = chunk_size)]
    chunk: Bytes,
    /// Memory for messages that were received and wait for the disk.
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(64 * Bytes::MIB), value_parser = buffer_size)]
    buffer: Bytes,
    /// The encoding of a channel's messages, for programs that read the file, if it is not what the channel declares: cam=protobuf,
    /// imu=json. For each channel once.
    #[arg(long, value_name = "CHANNEL=NAME")]
    encoding: Vec<Encoding>,
    /// The schema of a channel's messages, if it is not what the channel declares: its name and its file, whose name ends with .json (JSON Schema), .desc or .binpb
    /// (protobuf), .bfbs (FlatBuffers), .msg (ROS 2), .idl or .omgidl. For each channel once.
    #[arg(long, value_name = "CHANNEL=NAME:FILE")]
    schema: Vec<SchemaFile>,
    /// Show no progress on a terminal.
    #[arg(short, long)]
    quiet: bool,
    /// Repair a recording that was interrupted, in its place; with --output, write what can be read to another file.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "channels", "all", "from", "count", "duration", "follow", "split", "compression", "level", "threads", "chunk", "buffer",
            "encoding", "schema",
        ]
    )]
    recover: Option<PathBuf>,
    /// Most memory that --recover takes. A record or a chunk that needs more is not touched, or is left out of the new file: it may be
    /// damaged, or made to fill the memory.
    #[arg(long, value_name = "SIZE", default_value_t = memory::USUAL, value_parser = memory::parse, requires = "recover")]
    memory: Bytes,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Where recording starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// At the oldest message that is still whole.
    Oldest,
    /// At the first message published after attaching.
    New,
}

fn chunk_size(text: &str) -> Result<Bytes, String> {
    size(text, 4 * Bytes::KIB, Bytes::GIB)
}

fn buffer_size(text: &str) -> Result<Bytes, String> {
    size(text, Bytes::MIB, 1 << 40)
}

fn size(text: &str, least: u64, most: u64) -> Result<Bytes, String> {
    let size = text.parse::<Bytes>().map_err(|e| e.to_string())?;
    if !(least..=most).contains(&size.get()) {
        return Err(format!("at least {}, at most {}", Bytes(least), Bytes(most)));
    }
    Ok(size)
}

pub(crate) fn run(mut args: Args) -> Result<()> {
    // At the largest size that a file may have, a write is to fail.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map_err(|e| Failure::Other(format!("cannot catch SIGXFSZ: {e}")))?;
    if let Some(file) = &args.recover {
        return recover::run(file, args.output.as_deref(), args.force, args.memory);
    }
    let declared = Declared::new(&args.encoding, &args.schema)?;
    let signals = Signals::catch_with_hangup()?;
    let channels = channels(&mut args)?;
    let output = args.output.as_deref().expect("clap asks for it");
    check_names(&declared, &channels)?;
    record(&args, output, &declared, &signals, &channels)
}

/// The channels by their names; none for the daemon's only one.
fn channels(args: &mut Args) -> Result<Vec<ChannelName>> {
    if !args.all {
        args.global.name_several(&args.channels)?;
        return Ok(args.global.channels().to_vec());
    }
    if args.global.is_given {
        return Err(Failure::Usage("--all and --channel differ: name the channels, or record all of them".to_owned()));
    }
    let Done::List(all) = args.global.ask(&Request::List)? else {
        let what = "the daemon answered a request for its channels with something else";
        return Err(Failure::Other(what.to_owned()));
    };
    let readable = all.into_iter().filter(|one| one.mode == Mode::Ring && one.allowed.contains(&Right::Read));
    let channels: Vec<_> = readable.map(|one| one.channel).collect();
    if channels.is_empty() {
        return Err(Failure::Other("the daemon has no ring channel that this user may read".to_owned()));
    }
    Ok(channels)
}

/// A description of a channel that is not recorded is a slip.
fn check_names(declared: &Declared, channels: &[ChannelName]) -> Result<()> {
    let is_unknown = |name: &&str| !channels.is_empty() && !channels.iter().any(|channel| channel.as_str() == *name);
    match declared.channels().find(is_unknown) {
        Some(name) => {
            Err(Failure::Usage(format!("--encoding or --schema is for channel {name}, which is not recorded")))
        }
        None => Ok(()),
    }
}

fn record(args: &Args, output: &Path, declared: &Declared, signals: &Signals, channels: &[ChannelName]) -> Result<()> {
    let start = match args.from {
        From::Oldest => Start::Oldest,
        From::New => Start::New,
    };
    let endpoint = args.global.endpoint();
    let mut streams: Vec<Stream> = match channels {
        [] => vec![Stream::new(&endpoint, None, start, args.follow)?],
        named => {
            let streams = named.iter().map(|name| Stream::new(&endpoint, Some(name), start, args.follow));
            streams.collect::<Result<_>>()?
        }
    };
    // Before there is a file, which would be left behind, or would have replaced another one.
    streams.iter_mut().try_for_each(Stream::probe)?;
    let split = Split::new(&args.split);
    let files = Files::create(Names::new(output, &split), split, args.force)?;
    let (chunk, buffer) = (args.chunk.get() as usize, args.buffer.get() as usize);
    let pipeline = Pipeline::start(files, args.compression, args.level, args.threads as usize, buffer)?;
    let mut receiver = Receiver::new(streams, Sink::new(pipeline, chunk), declared, signals, args.count);
    let monitor = Monitor::start(Watched {
        endpoint,
        channels: channels.to_vec(),
        counters: Arc::clone(&receiver.sink.counters),
        progress: Arc::clone(&receiver.sink.pipeline.progress),
        is_quiet: args.quiet,
    })?;
    let begun = Instant::now();
    let stop = receiver.run(args.duration);
    let (lost, elapsed) = (receiver.sink.lost(), begun.elapsed());
    let summary = receiver.sink.pipeline.finish().finish(&stop.reason);
    drop(monitor);
    tell(summary, stop, lost, elapsed)
}

/// Says what was recorded, and fails if that is not everything.
fn tell(summary: Summary, stop: Stop, lost: u64, elapsed: Duration) -> Result<()> {
    let files = match summary.files.as_slice() {
        [only] => only.display().to_string(),
        files => format!("{} to {}", files[0].display(), files[files.len() - 1].display()),
    };
    let mut told = format!("{files}: {}", human::carried(summary.messages, summary.bytes, elapsed));
    if lost > 0 {
        told += &format!("; {}", human::messages(lost, "lost before the recorder received them"));
    }
    note(&told);
    match (summary.failed, stop.failure) {
        (Some(failed), _) => Err(Failure::Other(failed)),
        (None, Some(failure)) => Err(failure),
        (None, None) => Ok(()),
    }
}
