//! Loading and checking on an imagined machine, so that the real one's files and memory do not matter.

mod content;
mod created;
mod defaults;
mod handoff;
mod merging;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};

use shm_proto::Bytes;

use super::{ChannelConfig, Config, Error, Given, Located, Origin, Setting, load};
use crate::host::{Groups, Host, Shm};
use shm_test_support::TempDir;

/// A machine with 16 GiB of memory and half of it for shared memory, and no standard input.
fn host() -> Host {
    Host {
        uid: 1000,
        groups: Groups::All,
        runtime_dir: "/run/user/1000/shmd".into(),
        prefix: "shmd-1000".parse().unwrap(),
        state_dir: Some("/home/me/.local/state/shmd".into()),
        stdin_feeds: false,
        memory: Some(16 * Bytes::GIB),
        shm: Some(Shm { total: 8 * Bytes::GIB, free: 7 * Bytes::GIB }),
        shm_dir: "/nonexistent".into(),
    }
}

/// Files of one test and what goes over them.
struct Setup {
    dir: TempDir,
    given: Given,
    host: Host,
}

impl Setup {
    /// With this main file.
    fn new(text: &str) -> Self {
        let dir = TempDir::new();
        let file = dir.path().join("shmd.toml");
        fs::write(&file, text).unwrap();
        let config = Some(Located { value: file, origin: Origin::Flag("--config".into()) });
        Setup { dir, given: Given { config, ..Given::default() }, host: host() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("shmd.toml")
    }

    /// With one more file in `shmd.d`.
    fn part(self, name: &str, text: &str) -> Self {
        let parts = self.dir.path().join("shmd.d");
        fs::create_dir_all(&parts).unwrap();
        fs::write(parts.join(name), text).unwrap();
        self
    }

    /// With a flag or variable for the only channel.
    fn flag(mut self, key: &str, text: &str) -> Self {
        let name = format!("--{}", key.replace('_', "-"));
        self.given.channel.push(setting(key, text, &name));
        self
    }

    /// With `--set`.
    fn set(mut self, channel: &str, key: &str, text: &str) -> Self {
        self.given.set.push((channel.into(), setting(key, text, &format!("--set {channel}.{key}"))));
        self
    }

    fn load(&self) -> Result<Config, Error> {
        load(&self.given, &self.host)
    }

    fn good(&self) -> Config {
        self.load().unwrap_or_else(|e| panic!("{e}"))
    }

    fn channel(&self) -> ChannelConfig {
        let mut channels = self.good().channels;
        assert_eq!(channels.len(), 1);
        channels.remove(0)
    }

    /// The refusal, with the test's directory taken off.
    fn refusal(&self) -> String {
        let message = self.load().expect_err("this configuration is good").to_string();
        message.replace(&format!("{}/", self.dir.path().display()), "")
    }
}

fn setting(key: &str, text: &str, origin: &str) -> Setting {
    let text = Located { value: text.to_owned(), origin: Origin::Flag(origin.to_owned()) };
    Setting { key: key.to_owned(), text }
}

/// The defaults' file that is shipped.
fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/shmd.toml");
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
