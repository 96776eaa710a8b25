//! A reader's level-triggered descriptor: readable for as long as there may be something to receive.
//!
//! The library's descriptor says so only between an `arm` and the next one. This descriptor is over that one and over an event,
//! which is set while the reader is not armed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::eventfd::{EfdFlags, EventFd};
use shm_proto::internal::os::poll::PollSet;

#[derive(Debug)]
pub(crate) struct Readiness {
    set: PollSet,
    event: EventFd,
    is_set: bool,
}

impl Readiness {
    /// Over the descriptor of a reader. Readable at first.
    pub(crate) fn over(reader: BorrowedFd<'_>) -> nix::Result<Readiness> {
        let set = PollSet::new()?;
        let event = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        set.add(reader)?;
        set.add(&event)?;
        Ok(Readiness { set, event, is_set: true })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.set.as_fd().as_raw_fd()
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
