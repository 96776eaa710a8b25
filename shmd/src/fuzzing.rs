//! The daemon's parts that take what a stranger wrote, for the package `shm-fuzz`. Nothing of the program calls them.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use shm_proto::Geometry;
use shm_proto::internal::ring::Owner;

use crate::channel;
use crate::config::{self, ChannelConfig, Given, Located, Origin, Setting};
use crate::host::Host;
use crate::operation_log;

pub use crate::daemon::fuzzing::Stepwise;

/// Reads a configuration file, with one more key and its value on top as `--set` gives them, and returns it as `--check` shows it.
///
/// # Errors
/// What the user is told.
pub fn configuration(file: &Path, set: Option<(&str, &str, &str)>) -> Result<String, String> {
    let set = set.map(|(channel, key, value)| {
        let text = Located { origin: origin(), value: value.to_owned() };
        (channel.to_owned(), Setting { key: key.to_owned(), text })
    });
    let config = load(file, set).map_err(|e| e.to_string())?;
    Ok(config::show(&config))
}

fn origin() -> Origin {
    Origin::Flag("--set".to_owned())
}

fn load(file: &Path, set: Option<(String, Setting)>) -> Result<config::Config, config::Error> {
    let config = Some(Located { origin: origin(), value: file.to_owned() });
    let given = Given { config, set: set.into_iter().collect(), ..Given::default() };
    config::load(&given, &Host { stdin_feeds: false, ..Host::look() })
}

/// A channel's configuration from the text of a file.
fn only_channel(dir: &Path, text: &str) -> ChannelConfig {
    let file = dir.join("shmd.toml");
    fs::write(&file, text).expect("a configuration can be written");
    let mut config = load(&file, None).unwrap_or_else(|e| panic!("{e}"));
    config.channels.remove(0)
}

/// A daemon that finds what another has left behind.
#[derive(Debug)]
pub struct Successor {
    config: ChannelConfig,
    owner: Owner,
}

impl Successor {
    /// With this configuration, in this directory.
    #[must_use]
    pub fn new(dir: &Path, text: &str) -> Self {
        operation_log::keep(1);
        let owner = channel::this_process(dir).expect("this process has a start");
        Self { config: only_channel(dir, text), owner }
    }

    /// The facts of a segment that it would adopt.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        channel::geometry(&self.config)
    }

    /// The daemon before it: the same boot and directory, another process.
    #[must_use]
    pub fn predecessor(&self) -> Owner {
        Owner { pid: self.owner.pid, start: self.owner.start.wrapping_sub(1), ..self.owner }
    }

    /// Goes on in the segment behind `file`, and returns its facts and its capacity.
    ///
    /// # Errors
    /// Why it does not.
    pub fn adopt(&self, file: OwnedFd, read_only: OwnedFd) -> Result<(Geometry, u64), String> {
        channel::adopt_nameless((file, read_only), &self.config, self.owner).map_err(|e| e.to_string())?
    }
}
