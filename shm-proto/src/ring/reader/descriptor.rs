//! The one descriptor that a program polls, over the bell and the connection to the daemon.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::SystemError;
use crate::os::bell::Bell;
use crate::os::poll::PollSet;
use crate::ring::reader::error::Result;

/// Created at the first use, so that a reader that is never polled needs no descriptor for it.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    set: OnceCell<PollSet>,
    /// The connection's number of changes when the descriptor was last updated.
    changes: u64,
}

impl Descriptor {
    /// The descriptor, which is readable while the bell or the connection is.
    pub(super) fn over(&self, bell: BorrowedFd<'_>, connection: Option<BorrowedFd<'_>>) -> Result<BorrowedFd<'_>> {
        if let Some(set) = self.set.get() {
            return Ok(set.as_fd());
        }
        let failed = |e| SystemError::new("make a descriptor over a reader's bell and connection", e);
        let set = PollSet::new().map_err(failed)?;
        for fd in [Some(bell), connection].into_iter().flatten() {
            set.add(fd).map_err(failed)?;
        }
        Ok(self.set.get_or_init(|| set).as_fd())
    }

    /// Updates the descriptor after the connection has changed. A bell that no process can ring any more would be
    /// readable forever.
    pub(super) fn follow(&mut self, changes: u64, bell: &Bell, connection: Option<BorrowedFd<'_>>) {
        let Some(set) = self.set.get().filter(|_| changes != self.changes) else { return };
        self.changes = changes;
        for fd in [(!bell.is_alone()).then(|| bell.as_fd()), connection].into_iter().flatten() {
            // If there is no memory to add a descriptor, the other one wakes the reader.
            let _ = set.add(fd);
        }
        if bell.is_alone() {
            set.remove(bell);
        }
    }
}
