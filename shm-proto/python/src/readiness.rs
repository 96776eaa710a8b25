//! A reader's level-triggered descriptor: readable for as long as there may be something to receive.
//!
//! The library's descriptor says so only between an `arm` and the next one. This one is an epoll instance over it and over an
//! event, which is set while the reader is not armed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

#[derive(Debug)]
pub(crate) struct Readiness {
    epoll: Epoll,
    event: EventFd,
    is_set: bool,
}

impl Readiness {
    /// Over the descriptor of a reader. Readable at first.
    pub(crate) fn over(reader: BorrowedFd<'_>) -> nix::Result<Readiness> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(reader, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(event.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Readiness { epoll, event, is_set: true })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }

    /// Makes the descriptor readable.
    pub(crate) fn set(&mut self) {
        if !self.is_set {
            // The value is 0, so there is space for 1.
            self.is_set = self.event.write(1).is_ok();
        }
    }

    /// The reader has just been armed, and its own descriptor tells the rest.
    pub(crate) fn clear(&mut self) {
        if self.is_set {
            self.is_set = self.event.read().is_err();
        }
    }
}
