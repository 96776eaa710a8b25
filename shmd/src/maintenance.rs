//! Shrinking a channel that nobody writes.
//!
//! A shrink is the writer's work: it has to lead the readers out of the memory to be cut. The daemon does not do it itself.
//! Taking over a ring takes as long as its records are many, and a program that still holds the segment open for writing
//! could cut it under the daemon's feet (SIGBUS). A child process borrows the writer role like any other program: it is the
//! child that takes its time, and the child that dies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use shm_proto::internal::client::RUNTIME_DIR_VARIABLE;
use shm_proto::internal::os::peer::pidfd;
use shm_proto::internal::os::poll::readable;
use shm_proto::{ChannelName, Endpoint, Error, ErrorKind, Result, Writer, WriterError};

use crate::threads;

/// The option that makes this program the child.
const OPTION: &str = "--finish-shrink";
/// How often the child looks whether the readers have made way.
const LOOK: Duration = Duration::from_millis(20);
/// Most children at a time: to start one takes the daemon about a millisecond.
const MOST: usize = 8;

/// How many children there are, of all channels together.
#[derive(Debug, Default)]
pub(crate) struct Helpers(Arc<()>);

impl Helpers {
    /// Whether there are as many as there may be.
    pub(crate) fn are_busy(&self) -> bool {
        Arc::strong_count(&self.0) > MOST
    }
}

/// The child, from the daemon's side. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Option<Child>,
    pid: u32,
    /// Readable when the process has ended.
    end: OwnedFd,
    /// Counts this helper.
    _one: Arc<()>,
}

impl Helper {
    /// Starts the child for a channel of the daemon in `runtime_dir`.
    ///
    /// # Errors
    /// When the system gives no process or no descriptor.
    pub(crate) fn start(helpers: &Helpers, runtime_dir: &Path, channel: &ChannelName) -> Result<Self> {
        // The running program, even if its file was replaced since.
        let mut child = Command::new("/proc/self/exe")
            .args([OPTION, channel.as_str()])
            .env_clear()
            .env(RUNTIME_DIR_VARIABLE, runtime_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| Error::system(format!("start a process to shrink channel {channel}"), e))?;
        let pid = child.id();
        // Not waited for yet, so the number is still this child's.
        match pidfd(pid) {
            Ok(end) => Ok(Self { child: Some(child), pid, end, _one: Arc::clone(&helpers.0) }),
            Err(e) => {
                let _ = child.kill();
                reap(child);
                Err(e.into())
            }
        }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when the process has ended.
    pub(crate) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Ends it, and waits for its end: the next program in this process knows nothing of it.
    pub(crate) fn end_now(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How it has ended, if it has and this was not asked before.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A child that has ended by itself cannot be killed.
            let _ = child.kill();
            reap(child);
        }
    }
}

/// Waits for a child that was killed, in a thread: what it had mapped may take the system a while to give back.
fn reap(mut child: Child) {
    if matches!(child.try_wait(), Ok(None)) {
        // Without a thread it stays a zombie until the daemon ends.
        let _ = threads::spawn("reaper", move || drop(child.wait()));
    }
}

/// The child's part: holds the writer role until the shrink is done or the daemon wants the role back.
///
/// # Errors
/// When the daemon does not lend the role.
pub(crate) fn finish_shrink(channel: &str) -> Result<()> {
    let channel: ChannelName = channel.parse()?;
    // For the next daemon it would be a program that has borrowed the role, and makes way for nobody.
    let endpoint = Endpoint::find(None).with_patience(Duration::ZERO);
    let mut writer = match Writer::attach(&endpoint, Some(&channel)) {
        // Another program was faster, and shrinks the channel in our place.
        Err(e) if e.refusal() == Some(ErrorKind::WriterTaken) => return Ok(()),
        writer => writer?,
    };
    while writer.is_shrinking() {
        let Some(link) = writer.link_fd() else { return Ok(()) };
        readable(link, Some(LOOK)).map_err(|e| Error::system("wait for the daemon", e))?;
        match writer.maintain() {
            Err(WriterError::Revoked { .. }) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}
