//! Where a daemon of a test is: its directory, its object names, and what is left of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use shm_proto::internal::control::Resized;
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::{Client, Done, Endpoint, Request, RequestError};

use crate::dir::{TempDir, unique};
use crate::process::{clean, program};
use crate::wait::PATIENCE;

/// A directory that everybody may look into, a runtime directory in it that does not exist yet, and a prefix.
#[derive(Debug)]
pub struct Place {
    pub dir: TempDir,
    pub prefix: String,
}

impl Place {
    #[expect(clippy::new_without_default, reason = "each is another place")]
    pub fn new() -> Self {
        Self::named("place")
    }

    /// The name is a part of the directory's and of the objects' names.
    pub fn named(name: &str) -> Self {
        let prefix = unique(name);
        let dir = TempDir::named(&prefix);
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Place { dir, prefix }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The daemon's runtime directory; the daemon makes it.
    pub fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// Where an object of the daemon is seen; a ring's segment has the name of its channel.
    pub fn object(&self, channel: &str) -> PathBuf {
        Path::new("/dev/shm").join(format!("{}.{channel}", self.prefix))
    }

    /// What a daemon that has ended should have removed: objects in `/dev/shm`, files in the runtime directory.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        // A daemon leaves the directory itself if it was there before, as after a daemon that was killed.
        let left = fs::read_dir(self.run_dir()).into_iter().flatten().filter_map(Result::ok);
        shared_memory(&self.prefix).into_iter().chain(left.map(|entry| entry.path())).collect()
    }

    /// The arguments of a daemon that is to run here with this configuration, in TOML.
    pub fn configured<'c>(&self, command: &'c mut Command, config: &str) -> &'c mut Command {
        let file = self.path("shmd.toml");
        fs::write(&file, config).unwrap();
        command.arg("--config").arg(file).arg("--runtime-dir").arg(self.run_dir()).args(["--prefix", &self.prefix])
    }

    /// A daemon that is to run here with this configuration, in TOML.
    pub fn shmd(&self, config: &str) -> Command {
        let mut command = clean(program("shmd"));
        self.configured(&mut command, config);
        command
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::in_dir(&self.run_dir())
    }

    /// A connection to the daemon, which has to be there.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.endpoint(), PATIENCE).unwrap()
    }

    /// Asks the daemon, which may be away.
    pub fn ask(&self, request: &Request) -> Result<Done, RequestError> {
        Client::connect(&self.endpoint(), PATIENCE)?.request(request)
    }

    /// The figures of the only channel.
    #[track_caller]
    pub fn stat(&self) -> ChannelStat {
        match self.ask(&Request::Stat { channel: None }) {
            Ok(Done::Stat(mut channels)) => channels.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a capacity.
    #[track_caller]
    pub fn resize(&self, bytes: u64) -> Result<Resized, RequestError> {
        match self.ask(&Request::Resize { channel: None, bytes })? {
            Done::Resize(resized) => Ok(resized),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for object in shared_memory(&self.prefix) {
            let _ = fs::remove_file(object);
        }
    }
}

/// Everything in `/dev/shm` that has the prefix: segments, and the semaphores of handoffs.
pub fn shared_memory(prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/shm").unwrap().filter_map(Result::ok);
    let ours = |name: &str| name.strip_prefix("sem.").unwrap_or(name).starts_with(prefix);
    entries.filter(|entry| ours(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}
