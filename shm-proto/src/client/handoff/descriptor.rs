//! The one descriptor of a handoff reader, over the event of its watch and the connection to the daemon.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use crate::error::SystemError;
use crate::os::poll::{PollSet, Watched};

#[derive(Debug)]
pub(super) struct Descriptor {
    set: PollSet,
    connection: Watched,
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
        Ok(Descriptor { set, connection: Watched::default(), changes: None })
    }

    /// Updates the descriptor after the connection has changed.
    pub(super) fn follow(&mut self, changes: u64, connection: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        if self.changes != Some(changes) {
            self.connection.put(&self.set, connection).map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use std::io::pipe;
    use std::time::Duration;

    use super::*;
    use crate::os::poll::readable;

    #[test]
    fn a_connection_that_is_lost_is_not_watched_any_more_although_a_child_has_a_copy() {
        let ((event, _ringer), (connection, daemon)) = (pipe().unwrap(), pipe().unwrap());
        let mut descriptor = Descriptor::over(event.as_fd()).unwrap();
        descriptor.follow(0, Some(connection.as_fd())).unwrap();
        let is_readable = |descriptor: &Descriptor| readable(descriptor.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!is_readable(&descriptor));
        let copy = connection.try_clone().unwrap();
        drop((daemon, connection));
        assert!(is_readable(&descriptor));
        let (next, _next_daemon) = pipe().unwrap();
        descriptor.follow(1, Some(next.as_fd())).unwrap();
        assert!(!is_readable(&descriptor));
        drop(copy);
    }
}
