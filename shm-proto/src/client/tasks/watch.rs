//! A descriptor as tokio sees it.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Result, SystemError};

fn failed(error: std::io::Error) -> SystemError {
    SystemError::new("wait for a descriptor in a task", error)
}

/// Tells when a descriptor becomes readable.
///
/// tokio asks the kernel for changes only. The descriptors here are epoll instances, and each event in one of them is a change.
/// Whatever came before [`poll_changed`](Self::poll_changed) returned has to be looked for after that call.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Watches a copy of the descriptor.
    ///
    /// # Panics
    /// Outside of a runtime that drives descriptors.
    pub(super) fn new(fd: BorrowedFd<'_>) -> Result<Self> {
        let copy = fd.try_clone_to_owned().map_err(failed)?;
        // SAFETY: an `OwnedFd` is open, and always the same descriptor, until the `AsyncFd` that owns it drops it.
        let registered = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) };
        registered.map(Watch).map_err(|error| failed(error.into()))
    }

    /// Ready when the descriptor has become readable since the last time that this was ready.
    pub(super) fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.0.poll_read_ready(cx)).map_err(failed)?.clear_ready();
        Poll::Ready(Ok(()))
    }
}
