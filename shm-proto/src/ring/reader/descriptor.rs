//! The one descriptor that a program polls: an epoll instance over the bell and the connection to the daemon.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::error::SystemError;
use crate::os::bell::Bell;
use crate::ring::reader::error::Result;

/// Created at the first use, so that a reader that is never polled needs no descriptor for it.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    epoll: OnceCell<Epoll>,
    /// The connection's number of changes when the descriptor was last updated.
    changes: u64,
}

impl Descriptor {
    /// The descriptor, which is readable while the bell or the connection is. The kernel removes a descriptor that is
    /// closed.
    pub(super) fn over(&self, bell: BorrowedFd<'_>, connection: Option<BorrowedFd<'_>>) -> Result<BorrowedFd<'_>> {
        if let Some(epoll) = self.epoll.get() {
            return Ok(epoll.0.as_fd());
        }
        let failed = |e| SystemError::new("make a descriptor over a reader's bell and connection", e);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        for fd in [Some(bell), connection].into_iter().flatten() {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        }
        Ok(self.epoll.get_or_init(|| epoll).0.as_fd())
    }

    /// Updates the descriptor after the connection has changed. A bell that no process can ring any more would be
    /// readable forever.
    pub(super) fn follow(&mut self, changes: u64, bell: &Bell, connection: Option<BorrowedFd<'_>>) {
        let Some(epoll) = self.epoll.get().filter(|_| changes != self.changes) else { return };
        self.changes = changes;
        for fd in [(!bell.is_alone()).then(|| bell.as_fd()), connection].into_iter().flatten() {
            // A descriptor that is already there stays. If there is no memory to add a descriptor, the other one wakes
            // the reader.
            let _ = epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0));
        }
        if bell.is_alone() {
            let _ = epoll.delete(bell);
        }
    }
}
