//! `shmctl metrics`: the figures of `stat` for Prometheus.

pub mod exposition;
mod families;
mod http;
mod listen;
mod reader_names;
mod server;
pub mod textfile;

use std::path::PathBuf;

use clap::Args as ClapArgs;
use shm_proto::internal::control::Pong;
use shm_proto::internal::control::stat::{ChannelStat, ReaderStat};
use shm_proto::{ChannelName, Client, Done, Endpoint, Error, Request, RequestError};

use self::families::render;
pub(crate) use self::listen::Listen;
use self::reader_names::ReaderNames;
use super::unexpected;
use crate::error::{Failure, Result};
use crate::global::{ANSWER, Global};
use crate::output::print;
use crate::target::Target;

const EXAMPLES: &str = "\
Names, types and units follow the conventions of Prometheus. The label \"reader\" is the reader's program; the second reader of \
that program in a channel is PROGRAM#2. If the daemon does not answer, the output is shmd_up 0, and the exit code \
is 69 without a daemon, 75 if the daemon is too slow, and 77 if this user may not connect.

--listen answers GET /metrics over HTTP/1.1 until SIGINT or SIGTERM, also while there is no daemon. shmctl opens no TCP port: \
--listen systemd serves the sockets of a systemd socket unit, such as shmd-metrics.socket, and these may be TCP.

Examples:
  shmctl metrics | promtool check metrics
  shmctl metrics --output /var/lib/prometheus/node-exporter/shmd.prom
  shmctl metrics --listen unix:/run/shmd/metrics.sock
  curl --unix-socket /run/shmd/metrics.sock http://localhost/metrics";

/// Print the figures of all channels in the text format of Prometheus, or serve them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Replace FILE as a whole instead of printing. The textfile collector of node_exporter reads files that end in .prom.
    #[arg(short, long, value_name = "FILE", conflicts_with = "listen")]
    output: Option<PathBuf>,
    /// Serve the metrics over HTTP on a Unix socket (unix:PATH), or on the sockets of a socket unit (systemd).
    #[arg(short, long, value_name = "WHERE")]
    listen: Option<Listen>,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let metrics = Metrics { endpoint: global.endpoint(), channel: global.channel.clone() };
    if let Some(listen) = &args.listen {
        return server::run(&listen.open()?, metrics);
    }
    let (daemon, channels, failure) = metrics.ask()?;
    let text = render(&Scrape::new(daemon, channels, &mut ReaderNames::default()));
    match &args.output {
        Some(path) => textfile::replace(path, &text)?,
        None => print(&text)?,
    }
    failure.map_or(Ok(()), Err)
}

/// What is asked for.
#[derive(Debug)]
struct Metrics {
    endpoint: Endpoint,
    channel: Option<ChannelName>,
}

impl Metrics {
    /// Who the daemon is, and its figures. If the daemon does not answer, there are none, and the failure says why.
    fn ask(&self) -> Result<(Option<Pong>, Vec<ChannelStat>, Option<Failure>)> {
        match self.try_ask() {
            Ok((daemon, channels)) => Ok((Some(daemon), channels, None)),
            Err(failure) if is_silence(&failure) => Ok((None, Vec::new(), Some(failure))),
            Err(failure) => Err(failure),
        }
    }

    fn try_ask(&self) -> Result<(Pong, Vec<ChannelStat>)> {
        let mut client = Client::connect(&self.endpoint, ANSWER)?;
        let daemon = match client.request(&Request::Ping)? {
            Done::Ping(daemon) => daemon,
            other => return Err(unexpected("ping", &other)),
        };
        match client.request(&Request::Stat { channel: self.channel.clone() })? {
            Done::Stat(channels) => Ok((daemon, channels)),
            other => Err(unexpected("stat", &other)),
        }
    }
}

/// Whether the daemon has said nothing: it is away, hangs, or may not be asked.
fn is_silence(failure: &Failure) -> bool {
    let Failure::Library(Error::Request(error)) = failure else { return false };
    matches!(error, RequestError::NoDaemon { .. } | RequestError::TimedOut { .. } | RequestError::System(_))
}

/// What the daemon has answered at one time.
#[derive(Debug)]
struct Scrape {
    daemon: Option<Pong>,
    channels: Vec<ChannelStat>,
    /// Of the readers of each channel.
    names: Vec<Vec<String>>,
}

impl Scrape {
    fn new(daemon: Option<Pong>, channels: Vec<ChannelStat>, names: &mut ReaderNames) -> Self {
        // While no daemon answers, nobody knows which readers have gone.
        let names = if daemon.is_some() { names.of(&channels) } else { Vec::new() };
        Scrape { daemon, channels, names }
    }

    /// The channel, the name, and the figures of each reader.
    fn readers(&self) -> impl Iterator<Item = (&str, &str, &ReaderStat)> {
        self.channels.iter().zip(&self.names).flat_map(|(stat, names)| {
            stat.readers.iter().zip(names).map(|(reader, name)| (stat.channel.as_str(), name.as_str(), reader))
        })
    }
}
