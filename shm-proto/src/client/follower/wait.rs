//! The one descriptor of a follower, over the present reader's descriptor and a timer for the pauses. Readers and writers in tasks
//! have such a descriptor, too.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::error::{Result, SystemError};
use crate::os::poll::PollSet;

/// Readable while the watched descriptor is, and from the end of a pause on.
#[derive(Debug)]
pub(in crate::client) struct Wait {
    set: PollSet,
    timer: TimerFd,
    watches: bool,
}

fn failed(errno: nix::Error) -> SystemError {
    SystemError::new("make a descriptor over a reader and a timer", errno)
}

impl Wait {
    pub(in crate::client) fn new() -> Result<Self> {
        let set = PollSet::new().map_err(failed)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .map_err(failed)?;
        set.add(&timer).map_err(failed)?;
        Ok(Wait { set, timer, watches: false })
    }

    /// Watches this descriptor, unless one is being watched.
    pub(in crate::client) fn watch(&mut self, fd: BorrowedFd<'_>) -> Result<()> {
        if !self.watches {
            self.set.add(fd).map_err(failed)?;
            self.watches = true;
        }
        Ok(())
    }

    /// Watches this descriptor beside the others.
    #[cfg(feature = "tokio")]
    pub(in crate::client) fn watch_also(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.set.add(fd).map_err(failed)
    }

    /// Stops watching this descriptor, which is about to be closed.
    pub(super) fn forget(&mut self, fd: BorrowedFd<'_>) {
        if std::mem::take(&mut self.watches) {
            self.set.remove(fd);
        }
    }

    /// A pause ends at this moment of `CLOCK_MONOTONIC`.
    pub(in crate::client) fn until(&self, moment_ns: u64) -> Result<()> {
        let moment = TimeSpec::from_duration(Duration::from_nanos(moment_ns));
        self.timer.set(Expiration::OneShot(moment), TimerSetTimeFlags::TFD_TIMER_ABSTIME).map_err(failed)
    }

    /// There is no pause.
    pub(super) fn end_pause(&self) -> Result<()> {
        self.timer.unset().map_err(failed)
    }
}

impl AsFd for Wait {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::os::clock::monotonic_ns;

    fn is_readable(wait: &Wait, timeout: impl Into<PollTimeout>) -> bool {
        poll(&mut [PollFd::new(wait.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
    }

    #[test]
    fn it_is_readable_from_the_end_of_a_pause_on() {
        let wait = Wait::new().unwrap();
        wait.until(monotonic_ns() + 3_600_000_000_000).unwrap();
        assert!(!is_readable(&wait, PollTimeout::ZERO));
        wait.until(monotonic_ns() + 1_000_000).unwrap();
        assert!(is_readable(&wait, PollTimeout::NONE) && is_readable(&wait, PollTimeout::ZERO));
        wait.end_pause().unwrap();
        assert!(!is_readable(&wait, PollTimeout::ZERO));
    }

    #[test]
    fn one_watched_descriptor_follows_another() {
        let mut wait = Wait::new().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        wait.watch(reader.as_fd()).unwrap();
        wait.watch(reader.as_fd()).unwrap();
        assert!(!is_readable(&wait, PollTimeout::ZERO));
        // The end of file stays there to be read.
        drop(writer);
        assert!(is_readable(&wait, PollTimeout::ZERO) && is_readable(&wait, PollTimeout::ZERO));
        wait.forget(reader.as_fd());
        assert!(!is_readable(&wait, PollTimeout::ZERO));
        wait.watch(reader.as_fd()).unwrap();
        assert!(is_readable(&wait, PollTimeout::ZERO));
    }
}
