//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use shm_cli::exit_codes;
use shm_proto::Bytes;
use shm_proto::internal::duration;
use shmctl::companion::{Global, Result, Target};

use crate::failure::CODES;

const EXAMPLES: &str = "\
Examples:
  shmctl relay out cam --to nats://nats.example.org --stream CAM --create-stream
  shmctl relay in --from nats://nats.example.org --stream CAM cam";

const OUT: &str = "\
Examples:
  shmctl relay out cam --to nats://nats.example.org --stream CAM --create-stream
  shmctl relay out cam --to tls://nats.example.org --creds relay.creds --stream CAM
  shmctl relay out cam --to nats://10.0.0.7 --stream CAM --when-stalled spool:/var/spool/cam:4GiB
  shmctl relay out cam --to nats://10.0.0.7 --stream CAM --batch-age 500us";

const IN: &str = "\
Examples:
  shmctl relay in --from nats://nats.example.org --stream CAM cam
  shmctl relay in --from nats://nats.example.org --stream CAM --start new cam
  shmctl relay in --from nats://10.0.0.7 --stream CAM --create-channel --set max=64MiB cam";

fn after_help() -> String {
    format!("Exit codes:\n{}\n\n{EXAMPLES}", exit_codes(CODES))
}

/// Carries a channel of shmd to other hosts, and back, through NATS JetStream.
///
/// `out` publishes a channel to a stream, `in` publishes a stream to a channel. Both run until they are stopped, wait for a server
/// or a daemon that is away, and go on where they were. etc/RELAY.md says what is kept when something dies.
#[derive(Debug, Parser)]
#[command(name = "shmctl-relay", bin_name = "shmctl relay", version, after_help = after_help(), max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    /// Write figures for Prometheus to this file every 5 s, for the textfile collector of node_exporter.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) metrics: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Joins the channel that is an argument with the options.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let (Command::Out(Out { target, .. }) | Command::In(In { target, .. })) = &self.command;
        self.global.name(target.channels().first())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Out(Out),
    In(In),
}

/// Which server, and how to be accepted there.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Server {
    /// Name of the stream.
    #[arg(long, value_name = "STREAM")]
    pub(crate) stream: String,
    /// Credentials file, as `nsc` makes them.
    #[arg(long, value_name = "FILE", conflicts_with = "nkey")]
    pub(crate) creds: Option<PathBuf>,
    /// File with the seed of an nkey.
    #[arg(long, value_name = "FILE")]
    pub(crate) nkey: Option<PathBuf>,
    /// Trust the certificates in this PEM file instead of the system's. With --ca, the connection must use TLS.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// This relay's own certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

/// Publishes a channel to a stream.
///
/// Attaches two readers: one reads ahead, the other keeps everything in the channel that the server has not acknowledged. With
/// wait_readers = 2 nothing is lost when the relay is killed.
#[derive(Debug, ClapArgs)]
#[command(after_help = OUT)]
pub(crate) struct Out {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Addresses of the server or of a cluster's servers: nats://HOST:PORT or tls://HOST:PORT, separated by commas.
    #[arg(long, value_name = "URL", env = "SHMD_RELAY_URL", hide_env_values = true)]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) server: Server,
    /// First part of the subjects; the second is the channel's instance [default: the stream's name].
    #[arg(long, value_name = "SUBJECT")]
    pub(crate) subject: Option<String>,
    /// Make the stream unless there is one of that name: on disk, for SUBJECT.*, without its oldest messages when it is full.
    #[arg(long)]
    pub(crate) create_stream: bool,
    /// Most bytes of a stream that --create-stream makes.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", requires = "create_stream")]
    pub(crate) stream_bytes: Bytes,
    /// Messages are sent together up to this size. A larger message is sent by itself, in parts if the server requires that.
    #[arg(long, value_name = "SIZE", default_value = "256KiB")]
    pub(crate) batch_bytes: Bytes,
    /// Messages wait no longer than this for others to be sent together with.
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = duration::parse)]
    pub(crate) batch_age: Duration,
    /// Most bytes that are sent and not acknowledged yet. They are in memory.
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) in_flight: Bytes,
    /// What to do with new messages while the link stands still and the bytes in flight are used up: wait, so that the channel
    /// holds them; spool:DIR:SIZE, keep up to SIZE of them in a directory of this relay's own; or drop them, and count them.
    #[arg(long, value_name = "POLICY", default_value = "wait", value_parser = WhenStalled::parse)]
    pub(crate) when_stalled: WhenStalled,
    /// The link stands still when nothing has been acknowledged for this time.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::parse)]
    pub(crate) stalled_after: Duration,
}

/// Publishes a stream to a channel.
///
/// Borrows the channel's writer role. Nobody else may write to the channel, also not while this relay is away: the number of
/// messages in it says how far the relay has come.
#[derive(Debug, ClapArgs)]
#[command(after_help = IN)]
pub(crate) struct In {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Addresses of the server or of a cluster's servers: nats://HOST:PORT or tls://HOST:PORT, separated by commas.
    #[arg(long, value_name = "URL", env = "SHMD_RELAY_URL", hide_env_values = true)]
    pub(crate) from: String,
    #[command(flatten)]
    pub(crate) server: Server,
    /// Name of the durable consumer that keeps this relay's place [default: HOST_PREFIX_CHANNEL]. One for each channel.
    #[arg(long, value_name = "NAME")]
    pub(crate) consumer: Option<String>,
    /// Go on with a consumer that belongs to another channel or host, which must not use it any more. Otherwise that is an error.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Where a new consumer begins.
    #[arg(long, value_name = "WHERE", default_value = "oldest")]
    pub(crate) start: Start,
    /// If the stream is removed, wait for this time until there is a stream of that name again, then end with an error. 0: wait
    /// without end. At its start, the relay needs the stream.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    pub(crate) gone_after: Duration,
    /// Create the channel unless there is one of that name, as shmctl create does.
    #[arg(long)]
    pub(crate) create_channel: bool,
    /// Set a key of a channel that --create-channel creates, such as max=64MiB. May be given several times.
    #[arg(long, value_name = "KEY=VALUE", requires = "create_channel", value_parser = setting)]
    pub(crate) set: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as max=64MiB")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Start {
    /// With the oldest message of the stream.
    Oldest,
    /// With messages that are published from now on.
    New,
}

/// What to do while the link stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WhenStalled {
    Wait,
    Spool { dir: PathBuf, limit: u64 },
    Drop,
}

impl WhenStalled {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "wait" => return Ok(WhenStalled::Wait),
            "drop" => return Ok(WhenStalled::Drop),
            _ => {}
        }
        let spool =
            text.strip_prefix("spool:").and_then(|rest| rest.rsplit_once(':')).filter(|(dir, _)| !dir.is_empty());
        let Some((dir, limit)) = spool else { return Err("write wait, drop or spool:DIR:SIZE".to_owned()) };
        let limit: Bytes = limit.parse().map_err(|e| format!("{e}"))?;
        Ok(WhenStalled::Spool { dir: dir.into(), limit: limit.0 })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_are_command_lines_and_fit_a_line_of_the_help() {
        let mut lines = 0;
        for line in [EXAMPLES, OUT, IN].iter().flat_map(|text| text.lines().skip(1)) {
            assert!(line.chars().count() <= 98, "{line}");
            let words = line.split_whitespace().skip(2);
            Args::try_parse_from(std::iter::once("shmctl-relay").chain(words)).unwrap();
            lines += 1;
        }
        assert_eq!(lines, 9);
        assert!(Args::command().get_subcommands().all(|command| command.get_after_help().is_some()));
    }

    #[test]
    fn what_to_do_when_stalled_is_one_of_three() {
        assert_eq!(WhenStalled::parse("wait"), Ok(WhenStalled::Wait));
        assert_eq!(WhenStalled::parse("drop"), Ok(WhenStalled::Drop));
        let spool = WhenStalled::Spool { dir: "/var/a:b".into(), limit: 2 << 30 };
        assert_eq!(WhenStalled::parse("spool:/var/a:b:2GiB"), Ok(spool));
        for bad in ["", "spool", "spool:", "spool:/x", "spool::1MiB", "spool:/x:much", "wait:1s"] {
            assert!(WhenStalled::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_command_needs_an_address_and_a_stream() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert!(parse("shmctl-relay out cam --to nats://a --stream CAM").is_ok());
        assert!(parse("shmctl-relay in --from nats://a --stream CAM cam").is_ok());
        assert!(parse("shmctl-relay out cam --to nats://a").is_err());
        assert!(parse("shmctl-relay out cam --from nats://a --stream CAM").is_err());
        assert!(parse("shmctl-relay in --to nats://a --stream CAM cam").is_err());
        assert!(parse("shmctl-relay out cam --to nats://a --stream CAM --stream-bytes 1GiB").is_err());
        assert!(parse("shmctl-relay in --from nats://a --stream CAM cam --create-channel --set max=1MiB").is_ok());
        assert!(parse("shmctl-relay in --from nats://a --stream CAM cam --set max=1MiB").is_err());
        assert!(parse("shmctl-relay in --from nats://a --stream CAM cam --create-channel --set max").is_err());
    }

    #[test]
    fn the_channel_is_an_argument_or_an_option_and_named_once() {
        let settled = |line: &str| {
            let matches = Args::command().try_get_matches_from(line.split(' ')).unwrap();
            let mut args = Args::from_arg_matches(&matches).unwrap();
            args.global.take_options(&matches);
            args.settle().map(|()| args.global.channel.map(|name| name.to_string()))
        };
        for line in ["out cam", "out -c cam", "-c cam out", "-c cam out cam"] {
            let named = settled(&format!("shmctl-relay {line} --to nats://a --stream CAM")).unwrap();
            assert_eq!(named.as_deref(), Some("cam"), "{line}");
        }
        for line in ["-c imu in --from nats://a --stream CAM cam", "in -c imu -c cam --from nats://a --stream CAM"] {
            let refused = settled(&format!("shmctl-relay {line}")).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{refused}");
        }
    }
}
