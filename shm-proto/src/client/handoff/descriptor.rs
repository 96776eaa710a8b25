//! The one descriptor of a handoff reader, over the event of its watch and the connection to the daemon.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::error::SystemError;
use crate::os::poll::PollSet;

#[derive(Debug)]
pub(super) struct Descriptor {
    set: PollSet,
    /// The connection's number of changes when the descriptor was last updated.
    changes: Option<u64>,
}

fn failed(errno: Errno) -> SystemError {
    SystemError::new("make a descriptor over a handoff reader's event and connection", errno)
}

impl Descriptor {
    pub(super) fn over(event: BorrowedFd<'_>) -> Result<Self, SystemError> {
        let set = PollSet::new().map_err(failed)?;
        set.add(event).map_err(failed)?;
        Ok(Descriptor { set, changes: None })
    }

    /// Updates the descriptor after the connection has changed.
    pub(super) fn follow(&mut self, changes: u64, connection: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        if self.changes != Some(changes) {
            connection.map_or(Ok(()), |fd| self.set.add(fd)).map_err(failed)?;
            self.changes = Some(changes);
        }
        Ok(())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}
