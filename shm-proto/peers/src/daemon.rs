//! A shmd for one run.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::{Client, Endpoint, Request};
use shm_proto::internal::os::child;

use crate::Result;
use crate::case::Case;

const PATIENCE: Duration = Duration::from_secs(10);
/// Channels: there, and back again.
pub const CHANNELS: [&str; 2] = ["there", "back"];

#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    pub fn start(shmd: &Path, dir: &Path, prefix: &str, case: &Case) -> Result<Self> {
        let capacity = case.capacity_bytes;
        let channel = |name| {
            format!("[[channel]]\nname = \"{name}\"\ncapacity = {capacity}\nmin = {capacity}\nmax = {capacity}\n")
        };
        let config = dir.join("shmd.toml");
        fs::write(&config, CHANNELS.map(channel).concat())?;
        let log = dir.join("log");
        let mut command = Command::new(shmd);
        command.arg("--config").arg(config).arg("--runtime-dir").arg(dir).args(["--prefix", prefix, "--log", "warn"]);
        command.stdin(Stdio::null()).stderr(File::create(&log)?);
        let mut daemon = Daemon(child::spawn(&mut command)?);
        let begun = Instant::now();
        let ping = || Client::connect(&Endpoint::in_dir(dir), PATIENCE)?.request(&Request::Ping);
        while let Err(error) = ping() {
            if begun.elapsed() > PATIENCE || daemon.0.try_wait()?.is_some() {
                return Err(format!("{}: {error}\n{}", shmd.display(), fs::read_to_string(&log)?).into());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}
