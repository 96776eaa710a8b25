//! The writer's end of a link inside one process, for the daemon's sources, tests and benches.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError};

use super::link::{Link, LinkError, ToDaemon, ToWriter};

/// A line to the writer, with its descriptors.
pub type Line = (ToWriter, Vec<OwnedFd>);

/// Carries lines to the writer through a channel, and lines from the writer by a call.
pub struct ThreadLink {
    lines: Receiver<Line>,
    tell: Box<dyn FnMut(ToDaemon) -> Result<(), LinkError> + Send>,
    /// Lines taken, and the number of them that the daemon was told of.
    taken: u64,
    told: u64,
}

impl ThreadLink {
    /// A link that takes its lines from `lines`. The writer's thread calls `tell` with each line for the daemon.
    pub fn new(
        lines: Receiver<Line>,
        tell: impl FnMut(ToDaemon) -> Result<(), LinkError> + Send + 'static,
    ) -> ThreadLink {
        ThreadLink { lines, tell: Box::new(tell), taken: 0, told: 0 }
    }
}

impl fmt::Debug for ThreadLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadLink").field("taken", &self.taken).field("told", &self.told).finish_non_exhaustive()
    }
}

impl Link<ToWriter, ToDaemon> for ThreadLink {
    fn receive(&mut self) -> Result<Option<Line>, LinkError> {
        match self.lines.try_recv() {
            Ok(line) => {
                self.taken += 1;
                Ok(Some(line))
            }
            Err(TryRecvError::Empty) => {
                if self.told < self.taken {
                    self.told = self.taken;
                    self.send(ToDaemon::Taken { lines: self.taken })?;
                }
                Ok(None)
            }
            Err(TryRecvError::Disconnected) => Err(LinkError::Disconnected),
        }
    }

    fn send(&mut self, line: ToDaemon) -> Result<(), LinkError> {
        (self.tell)(line)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
