//! The one descriptor that a program polls: an epoll instance over the bell and the connection to the daemon.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::error::SystemError;
use crate::ring::reader::error::Result;

/// Made at the first look, so that a reader that is never polled needs no descriptor for it.
#[derive(Debug, Default)]
pub(super) struct Descriptor(OnceCell<Epoll>);

impl Descriptor {
    /// The descriptor, which is readable while one of these is. The kernel forgets one that is closed.
    pub(super) fn over(&self, bell: BorrowedFd<'_>, connection: Option<BorrowedFd<'_>>) -> Result<BorrowedFd<'_>> {
        if let Some(epoll) = self.0.get() {
            return Ok(epoll.0.as_fd());
        }
        let failed = |e| SystemError::new("make a descriptor over a reader's bell and connection", e);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        for fd in [Some(bell), connection].into_iter().flatten() {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        }
        Ok(self.0.get_or_init(|| epoll).0.as_fd())
    }
}
