//! The daemon that is measured: one that is started for the measurement, or one that runs.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::internal::control::stat::{Mode, Summary};
use shm_proto::internal::os::random;
use shm_proto::{ChannelName, Client, Done, Endpoint, Error, OnFull, Request, Writer};

use crate::crew::{LOOK, PATIENCE, find, follower};
use crate::job::BACK;
use crate::plan::{Case, Measure, Transport};
use crate::{Failure, Result};

/// A directory, and a prefix for the names of objects in `/dev/shm`. Dropping it removes both the directory and the objects.
#[derive(Debug)]
pub struct Own {
    pub dir: PathBuf,
    pub prefix: String,
}

impl Own {
    pub fn new() -> Result<Self> {
        let prefix = format!("shmd-bench-{}-{:08x}", process::id(), random::u64() as u32);
        let dir = env::temp_dir().join(&prefix);
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|e| Error::system(format!("make the directory {}", dir.display()), e))?;
        Ok(Own { dir, prefix })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Some libraries put a word of their own before the prefix.
    fn objects(&self) -> impl Iterator<Item = fs::DirEntry> {
        let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains(&self.prefix))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        // A program that ended normally has removed its objects itself.
        for entry in self.objects() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A daemon with a directory and object names of its own. Dropping it stops the daemon and removes what it left.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    own: Own,
    /// The time from the start of the daemon until its first answer.
    pub start_up: Duration,
}

/// How to start a daemon.
#[derive(Debug, Default)]
pub struct Setup {
    /// The channels, in TOML.
    pub channels: String,
    /// Further words of the command line.
    pub args: Vec<&'static str>,
    pub stdin: Option<Stdio>,
}

impl Setup {
    /// Adds a channel of a fixed capacity; `more` are further keys.
    pub fn channel(&mut self, name: &str, capacity: u64, more: &str) {
        let sizes = format!("capacity = {capacity}\nmin = {capacity}\nmax = {capacity}");
        self.free_channel(name, &format!("{sizes}\n{more}"));
    }

    /// Adds a channel with these keys.
    pub fn free_channel(&mut self, name: &str, keys: &str) {
        let _ = writeln!(self.channels, "[[channel]]\nname = \"{name}\"\nmax_readers = 1024\n{keys}");
    }

    pub fn start(self) -> Result<Daemon> {
        let program = find("shmd")?;
        let own = Own::new()?;
        let failed = |what: &str, e| Failure::from(Error::system(format!("{what} for a daemon to measure"), e));
        let config = own.path("shmd.toml");
        fs::write(&config, self.channels).map_err(|e| failed("write a configuration", e))?;
        let log = File::create(own.path("log")).map_err(|e| failed("make a log file", e))?;
        let mut command = follower(Some(program.as_os_str()))?;
        command.arg("--config").arg(config).arg("--runtime-dir").arg(own.path("run"));
        command.args(["--prefix", &own.prefix, "--log", "warn"]).args(self.args).stderr(log);
        command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        let begun = Instant::now();
        let child = command.spawn().map_err(|e| failed(&format!("start {}", program.display()), e))?;
        drop(command);
        let mut daemon = Daemon { child, own, start_up: Duration::ZERO };
        daemon.until_it_answers(begun)?;
        daemon.start_up = begun.elapsed();
        Ok(daemon)
    }
}

impl Daemon {
    fn until_it_answers(&mut self, begun: Instant) -> Result<()> {
        let endpoint = self.endpoint();
        loop {
            let answer = Client::connect(&endpoint, PATIENCE).and_then(|mut client| client.request(&Request::Ping));
            if answer.is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.own.path("log")).unwrap_or_default();
                let how = ended.map_or_else(|| "does not answer".to_owned(), |status| format!("has ended: {status}"));
                return Err(Failure::Other(format!(
                    "the daemon started for the measurement {how}\n{}",
                    log.trim_end()
                )));
            }
            sleep(LOOK);
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.own.path("run")
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::in_dir(&self.runtime_dir())
    }

    /// Asks the daemon to end, which tells its readers. Returns whether the daemon was still running.
    pub fn end(&mut self) -> bool {
        match (i32::try_from(self.child.id()), self.child.try_wait()) {
            (Ok(pid), Ok(None)) => kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok(),
            _ => false,
        }
    }

    /// Bytes of memory behind its objects in `/dev/shm`.
    pub fn shared_bytes(&self) -> u64 {
        self.own.objects().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
    }

    /// The summaries of its channels.
    pub fn list(&self) -> Result<Vec<Summary>> {
        list(&self.endpoint())
    }
}

fn list(endpoint: &Endpoint) -> Result<Vec<Summary>> {
    match Client::connect(endpoint, PATIENCE)?.request(&Request::List)? {
        Done::List(channels) => Ok(channels),
        other => Err(Failure::Other(format!("control protocol: the daemon answered list with {other:?}"))),
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.end() {
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
                sleep(LOOK);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where cases are measured.
#[derive(Debug)]
pub enum Stage {
    /// A daemon that was started for the measurement, with a channel for each capacity and perhaps one for answers.
    Private(Daemon),
    /// A channel of a daemon that other programs may use, too.
    Running { runtime_dir: PathBuf, channel: ChannelName, max_message: u64 },
}

/// The name of a private daemon's channel of this capacity.
pub fn channel_of(capacity: u64) -> Result<ChannelName> {
    Ok(format!("c{capacity}").parse()?)
}

impl Stage {
    /// A daemon with a channel for each capacity that the cases need, and one for answers.
    pub fn private(cases: &[Case]) -> Result<Self> {
        let mut setup = Setup::default();
        let rings = || cases.iter().filter(|case| case.transport == Transport::Ring);
        let capacities = rings().filter(|case| case.measure != Measure::Pipeline).map(|case| case.capacity_bytes);
        for capacity in capacities.collect::<BTreeSet<_>>() {
            setup.channel(&channel_of(capacity)?.to_string(), capacity, "");
        }
        if let Some(case) = rings().find(|case| case.is_busy()) {
            setup.channel(BACK, case.capacity_bytes, "");
        }
        setup.start().map(Stage::Private)
    }

    /// The channel that the user named, if it can be measured.
    pub fn running(endpoint: &Endpoint, channel: &ChannelName) -> Result<Self> {
        // Borrowed and given back at once, to refuse a channel that cannot be measured before anything starts.
        let writer = Writer::attach(endpoint, Some(channel.as_str()))?;
        let geometry = writer.geometry().clone();
        // What a handoff channel lends is the ring before it, whose settings are not those of the channel.
        if list(endpoint)?.iter().any(|summary| summary.channel == *channel && summary.mode == Mode::Handoff) {
            return Err(Failure::Other(format!(
                "channel {channel} is a handoff channel, which hands over one message at a time: measure a ring channel"
            )));
        }
        if geometry.on_full != OnFull::Block {
            return Err(Failure::Other(format!(
                "channel {channel} has on_full = \"{}\": only a lossless channel (\"block\") can be measured, because every \
                 reader checks every message",
                geometry.on_full
            )));
        }
        if geometry.ack {
            return Err(Failure::Other(format!(
                "channel {channel} has ack = true, and every message would wait for its readers: measure another channel"
            )));
        }
        let runtime_dir = endpoint.socket.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Stage::Running { runtime_dir, channel: channel.clone(), max_message: geometry.max_message })
    }

    pub fn runtime_dir(&self) -> PathBuf {
        match self {
            Stage::Private(daemon) => daemon.runtime_dir(),
            Stage::Running { runtime_dir, .. } => runtime_dir.clone(),
        }
    }
}
