//! The one descriptor that a program polls, over the bell and the connection to the daemon.

use std::cell::{OnceCell, RefCell};
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::SystemError;
use crate::os::bell::Bell;
use crate::os::poll::{PollSet, Watched};
use crate::ring::reader::error::Result;

/// Created at the first use, so that a reader that is never polled needs no descriptor for it.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    set: OnceCell<PollSet>,
    connection: RefCell<Watched>,
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
        set.add(bell).map_err(failed)?;
        self.connection.borrow_mut().put(&set, connection).map_err(failed)?;
        Ok(self.set.get_or_init(|| set).as_fd())
    }

    /// Updates the descriptor after the connection has changed. A bell that no process can ring any more would be
    /// readable forever.
    pub(super) fn follow(&mut self, changes: u64, bell: &Bell, connection: Option<BorrowedFd<'_>>) {
        let Some(set) = self.set.get().filter(|_| changes != self.changes) else { return };
        self.changes = changes;
        // If there is no memory to add a descriptor, the other one wakes the reader.
        let _ = self.connection.get_mut().put(set, connection);
        if bell.is_alone() {
            set.remove(bell);
        } else {
            let _ = set.add(bell.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::time::Duration;

    use super::*;
    use crate::os::poll::readable;

    #[test]
    fn a_connection_that_is_lost_is_not_watched_any_more_although_a_child_has_a_copy() {
        let (_ringer, sleeper) = Bell::new().unwrap();
        let (bell, (connection, daemon)) = (Bell::from_fd(sleeper).unwrap(), pipe().unwrap());
        let mut descriptor = Descriptor::default();
        descriptor.over(bell.as_fd(), Some(connection.as_fd())).unwrap();
        let is_readable = |descriptor: &Descriptor| {
            readable(descriptor.over(bell.as_fd(), None).unwrap(), Some(Duration::ZERO)).unwrap()
        };
        assert!(!is_readable(&descriptor));
        let copy = connection.try_clone().unwrap();
        drop((daemon, connection));
        assert!(is_readable(&descriptor));
        let (next, _next_daemon) = pipe().unwrap();
        descriptor.follow(1, &bell, Some(next.as_fd()));
        assert!(!is_readable(&descriptor));
        drop(copy);
    }
}
