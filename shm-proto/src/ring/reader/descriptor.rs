//! The one descriptor that a program polls: an epoll instance over the bell and the connection to the daemon.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::error::SystemError;
use crate::os::bell::Bell;
use crate::ring::reader::error::Result;

/// Made at the first look, so that a reader that is never polled needs no descriptor for it.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    epoll: OnceCell<Epoll>,
    /// How often the connection had changed when it was brought up to date.
    changes: u64,
}

impl Descriptor {
    /// The descriptor, which is readable while one of these is. The kernel forgets one that is closed.
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

    /// Brings it up to date with a connection that has changed. A bell that nobody can ring any more would be readable for ever.
    pub(super) fn follow(&mut self, changes: u64, bell: &Bell, connection: Option<BorrowedFd<'_>>) {
        let Some(epoll) = self.epoll.get().filter(|_| changes != self.changes) else { return };
        self.changes = changes;
        for fd in [(!bell.is_alone()).then(|| bell.as_fd()), connection].into_iter().flatten() {
            // One that is there already is left alone. Without memory for it, the reader is woken by the other.
            let _ = epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0));
        }
        if bell.is_alone() {
            let _ = epoll.delete(bell);
        }
    }
}
