//! The daemon that is measured: one started for it, or one that runs.

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
use shm_proto::internal::os::random;
use shm_proto::{ChannelName, Client, Endpoint, Error, OnFull, Request, Writer};

use super::crew::follower;
use crate::args::Global;
use crate::error::{Failure, Result};

/// A daemon answers or ends within this.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

/// A directory of our own, removed with everything in it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self> {
        let dir = env::temp_dir().join(format!("shmctl-bench-{}-{:08x}", process::id(), random::u64() as u32));
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|e| Error::system(format!("make the directory {}", dir.display()), e))?;
        Ok(Scratch(dir))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A daemon with a directory and object names of its own. Stopped and cleaned up after when it is dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    prefix: String,
    scratch: Scratch,
    /// From its start until it answered.
    pub(super) start_up: Duration,
}

/// How a daemon is to be started.
#[derive(Debug, Default)]
pub(super) struct Setup {
    /// The channels, in TOML.
    pub(super) channels: String,
    /// More words on the command line.
    pub(super) args: Vec<&'static str>,
    pub(super) stdin: Option<Stdio>,
}

impl Setup {
    /// Adds a channel of a fixed capacity; `more` are further keys.
    pub(super) fn channel(&mut self, name: &str, capacity: u64, more: &str) {
        let sizes = format!("capacity = {capacity}\nmin = {capacity}\nmax = {capacity}");
        self.free_channel(name, &format!("{sizes}\n{more}"));
    }

    /// Adds a channel with these keys.
    pub(super) fn free_channel(&mut self, name: &str, keys: &str) {
        let _ = writeln!(self.channels, "[[channel]]\nname = \"{name}\"\nmax_readers = 1024\n{keys}");
    }

    pub(super) fn start(self) -> Result<Daemon> {
        let program = find_shmd()?;
        let scratch = Scratch::new()?;
        let failed = |what: &str, e| Failure::from(Error::system(format!("{what} for a daemon to measure"), e));
        let config = scratch.path("shmd.toml");
        fs::write(&config, self.channels).map_err(|e| failed("write a configuration", e))?;
        let log = File::create(scratch.path("log")).map_err(|e| failed("make a log file", e))?;
        let prefix = format!("shmd-bench-{}-{:08x}", process::id(), random::u64() as u32);
        let mut command = follower(Some(program.as_os_str()))?;
        command.arg("--config").arg(config).arg("--runtime-dir").arg(scratch.path("run"));
        command.args(["--prefix", &prefix, "--log", "warn"]).args(self.args).stderr(log);
        command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        let begun = Instant::now();
        let child = command.spawn().map_err(|e| failed(&format!("start {}", program.display()), e))?;
        drop(command);
        let mut daemon = Daemon { child, prefix, scratch, start_up: Duration::ZERO };
        daemon.until_it_answers(begun)?;
        daemon.start_up = begun.elapsed();
        Ok(daemon)
    }
}

impl Daemon {
    fn until_it_answers(&mut self, begun: Instant) -> Result<()> {
        let endpoint = Endpoint::in_dir(&self.runtime_dir());
        loop {
            let answer = Client::connect(&endpoint, PATIENCE).and_then(|mut client| client.request(&Request::Ping));
            if answer.is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.scratch.path("log")).unwrap_or_default();
                let how = ended.map_or_else(|| "does not answer".to_owned(), |status| format!("has ended: {status}"));
                return Err(Failure::Other(format!(
                    "the daemon started for the measurement {how}\n{}",
                    log.trim_end()
                )));
            }
            sleep(LOOK);
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn runtime_dir(&self) -> PathBuf {
        self.scratch.path("run")
    }

    /// Asks it to end, which tells its readers. Whether it still ran.
    pub(super) fn end(&mut self) -> bool {
        match (i32::try_from(self.child.id()), self.child.try_wait()) {
            (Ok(pid), Ok(None)) => kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok(),
            _ => false,
        }
    }

    /// Bytes of memory behind its objects in `/dev/shm`.
    pub(super) fn shared_bytes(&self) -> u64 {
        self.objects().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
    }

    fn objects(&self) -> impl Iterator<Item = fs::DirEntry> {
        let ours = format!("{}.", self.prefix);
        let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        entries.filter(move |entry| entry.file_name().to_string_lossy().starts_with(&ours))
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
        // A daemon that ended as it should has left nothing; what another one leaves is ours to remove.
        for entry in self.objects() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// `shmd` beside this program, or in `PATH`.
fn find_shmd() -> Result<PathBuf> {
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|dir| dir.join("shmd"));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = beside.into_iter().chain(env::split_paths(&path).map(|dir| dir.join("shmd"))).find(|p| p.is_file());
    found.ok_or_else(|| {
        let text = "no shmd beside shmctl and none in PATH: put both programs into one directory, or measure a daemon that \
                    runs with --channel NAME";
        Failure::Other(text.to_owned())
    })
}

/// Where cases are measured.
#[derive(Debug)]
pub(super) enum Stage {
    /// A daemon of our own, with a channel for each capacity and perhaps one to answer on.
    Private(Daemon),
    /// Somebody else's channel.
    Running { runtime_dir: PathBuf, channel: ChannelName, max_message: u64 },
}

/// The channel that a reader of latency answers on.
pub(super) const BACK: &str = "back";

/// The name of a private daemon's channel of this capacity.
pub(super) fn channel_of(capacity: u64) -> Result<ChannelName> {
    Ok(format!("c{capacity}").parse()?)
}

impl Stage {
    /// A daemon with a channel for each of these capacities, and one to answer on.
    pub(super) fn private(capacities: &[u64], back: Option<u64>) -> Result<Self> {
        let mut setup = Setup::default();
        for &capacity in capacities {
            setup.channel(&channel_of(capacity)?.to_string(), capacity, "");
        }
        if let Some(capacity) = back {
            setup.channel(BACK, capacity, "");
        }
        setup.start().map(Stage::Private)
    }

    /// The channel that the user named, if it can be measured.
    pub(super) fn running(global: &Global, channel: &ChannelName) -> Result<Self> {
        let endpoint = global.endpoint();
        // Borrowed and given back at once: who has the role, and what the channel is, had better be known beforehand.
        let writer = Writer::attach(&endpoint, Some(channel))?;
        let geometry = writer.geometry().clone();
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

    pub(super) fn runtime_dir(&self) -> PathBuf {
        match self {
            Stage::Private(daemon) => daemon.runtime_dir(),
            Stage::Running { runtime_dir, .. } => runtime_dir.clone(),
        }
    }
}
