//! Shrinking a channel that nobody writes now, but that some program was lent.
//!
//! A shrink is the writer's work: it has to lead the readers out of the memory to be cut. The daemon does not do it itself
//! on such a channel, because a program that still holds the segment open for writing could cut it under the daemon's feet
//! (SIGBUS). A child process borrows the writer role like any other program, and if that happens, it is the child that dies.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_proto::control::{Endpoint, RUNTIME_DIR_VARIABLE};
use shm_proto::{ChannelName, Error, Result, Writer};

/// The option that makes this program the child.
pub(crate) const OPTION: &str = "--finish-shrink";
/// How often the child looks whether the readers have made way.
const LOOK: Duration = Duration::from_millis(20);

/// The child, from the daemon's side. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
}

impl Helper {
    /// Starts the child for a channel of the daemon in `runtime_dir`.
    ///
    /// # Errors
    /// When the system gives no process.
    pub(crate) fn start(runtime_dir: &Path, channel: &ChannelName) -> Result<Self> {
        // The running program, even if its file was replaced since.
        let child = Command::new("/proc/self/exe")
            .args([OPTION, channel.as_str()])
            .env_clear()
            .env(RUNTIME_DIR_VARIABLE, runtime_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| Error::system(format!("start a process to shrink channel {channel}"), e))?;
        Ok(Self { child })
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is still at work.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed any more; it is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's part: holds the writer role until the shrink is done or the daemon wants the role back.
///
/// # Errors
/// When the daemon does not lend the role.
pub(crate) fn finish_shrink(channel: &str) -> Result<()> {
    let channel: ChannelName = channel.parse()?;
    let mut writer = Writer::attach(&Endpoint::find(None), Some(&channel))?;
    while writer.is_shrinking() {
        let Some(link) = writer.link_fd() else { return Ok(()) };
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(link, PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::system("wait for the daemon", e)),
        }
        match writer.maintain() {
            Err(Error::Revoked { .. }) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}
