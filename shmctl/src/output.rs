//! Standard output: text at once, messages through a buffer that signals can interrupt.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use shm_proto::Error;
use shm_proto::internal::framing::input::widen;
use shm_proto::internal::os::poll::{PollFd, PollFlags, poll};

use crate::error::{Failure, Result, note};
use crate::signals::Signals;

/// The buffer is written out when it holds this much.
const ENOUGH: usize = 256 << 10;
/// If writing takes longer than this, the output is being read slowly.
const SLOW: Duration = Duration::from_millis(100);
/// How long to wait, after a signal, for a reader of the output that takes nothing.
const GRACE: Duration = Duration::from_secs(1);

/// Writes text that is complete.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Writes bytes that are complete.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(failure)
}

/// Writes `value` as one line of JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Failure::Other(format!("cannot write JSON: {e}")))?;
    print(&(text + "\n"))
}

/// Waits for one of `fds`, at most `timeout`; their events say which are ready. After an interrupted wait none is.
pub fn wait_for(fds: &mut [PollFd<'_>], timeout: Duration) -> Result<()> {
    poll(fds, Some(timeout)).map_err(|e| Error::system("cannot wait for input, output and signals", e))?;
    Ok(())
}

/// Whether a descriptor that was polled for no event shows that the other side is gone.
pub(crate) fn has_gone(fd: &PollFd<'_>) -> bool {
    let ends = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    fd.revents().is_some_and(|revents| revents.intersects(ends))
}

/// Whether a descriptor is ready.
pub fn has_news(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(true)
}

/// What a failed write means for the command.
pub(crate) fn failure(e: io::Error) -> Failure {
    if e.kind() == ErrorKind::BrokenPipe { Failure::OutputClosed } else { Failure::Output(e) }
}

/// Standard output for many messages: fill [`buffer`](Self::buffer), and [`flush`](Self::flush) when it is full or there
/// is time.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    buffer: Vec<u8>,
}

impl Output {
    pub(crate) fn stdout() -> Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failure)?);
        widen(&file);
        Ok(Output { file: nonblocking(&file).unwrap_or(file), buffer: Vec::with_capacity(ENOUGH) })
    }

    /// What is to be written next.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Whether it is time to write.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() >= ENOUGH
    }

    /// Writes everything, waiting for the process that reads it. After a signal that wait is short, and the rest is lost.
    /// Returns whether everything was written.
    pub(crate) fn flush(&mut self, signals: &Signals) -> Result<bool> {
        self.write(signals, Duration::MAX)
    }

    /// Writes everything. If the output is read slowly, returns as soon as some of the buffer is written and the buffer is not
    /// full: a caller that waited until everything is written would receive nothing during that time, and would seem to stand still.
    pub(crate) fn flush_some(&mut self, signals: &Signals) -> Result<()> {
        self.write(signals, SLOW).map(drop)
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Returns false if the rest is lost.
    fn write(&mut self, signals: &Signals, most: Duration) -> Result<bool> {
        let mut written = 0;
        let mut give_up = None;
        let mut slow = None;
        while written < self.buffer.len() {
            match self.file.write(&self.buffer[written..]) {
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if signals.came() {
                        let left = give_up.get_or_insert_with(|| Instant::now() + GRACE);
                        let left = left.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            note(&format!("{} bytes of output were not taken", self.buffer.len() - written));
                            self.buffer.clear();
                            return Ok(false);
                        }
                        wait_for(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], left)?;
                    } else {
                        let waited = slow.get_or_insert_with(Instant::now).elapsed();
                        let may_go_on = written > 0 && self.buffer.len() - written < ENOUGH;
                        let left = if may_go_on { most.saturating_sub(waited) } else { Duration::MAX };
                        if left.is_zero() {
                            self.buffer.drain(..written);
                            return Ok(true);
                        }
                        let out = PollFd::new(self.file.as_fd(), PollFlags::POLLOUT);
                        let signal = PollFd::new(signals.as_fd(), PollFlags::POLLIN);
                        wait_for(&mut [out, signal], left)?;
                    }
                }
                Err(e) => return Err(failure(e)),
            }
        }
        self.buffer.clear();
        Ok(true)
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A pipe opened once more, so that not blocking is this description's property and not that of the processes that share ours.
fn nonblocking(file: &File) -> Option<File> {
    let is_pipe = file.metadata().ok()?.file_type().is_fifo();
    let open = || OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/proc/self/fd/1").ok();
    is_pipe.then(open).flatten()
}
