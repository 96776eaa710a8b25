//! The one descriptor of a handoff reader: an epoll instance over the event of its watch and the connection to the daemon.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::error::SystemError;

#[derive(Debug)]
pub(super) struct Descriptor {
    epoll: Epoll,
    /// The connection's number of changes when the descriptor was last updated.
    changes: Option<u64>,
}

fn failed(errno: Errno) -> SystemError {
    SystemError::new("make a descriptor over a handoff reader's event and connection", errno)
}

impl Descriptor {
    pub(super) fn over(event: BorrowedFd<'_>) -> Result<Self, SystemError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        Ok(Descriptor { epoll, changes: None })
    }

    /// Updates the descriptor after the connection has changed. The kernel removes a descriptor that is closed.
    pub(super) fn follow(&mut self, changes: u64, connection: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        if self.changes == Some(changes) {
            return Ok(());
        }
        if let Some(connection) = connection {
            match self.epoll.add(connection, EpollEvent::new(EpollFlags::EPOLLIN, 0)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        self.changes = Some(changes);
        Ok(())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
