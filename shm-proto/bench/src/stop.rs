//! The user's wish to end a measurement: a descriptor that becomes readable and stays so.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use shm_proto::Error;
use shm_proto::internal::os::poll::{PollFd, PollFlags, poll};

use crate::{Failure, Result};

/// Every wait of a measurement is also a wait for this.
#[derive(Clone, Copy, Debug)]
pub struct Stop<'a>(BorrowedFd<'a>);

impl<'a> Stop<'a> {
    /// The wish is there as soon as `fd` can be read.
    pub fn when_readable(fd: &'a impl AsFd) -> Self {
        Stop(fd.as_fd())
    }

    /// Whether the user wants to end the measurement.
    pub fn came(self) -> bool {
        matches!(self.check(), Err(Failure::Stopped))
    }

    /// Fails with [`Failure::Stopped`] if the user wants to end the measurement.
    pub fn check(self) -> Result<()> {
        self.wait_beside([], Duration::ZERO)
    }

    /// Waits for the whole `time`.
    pub fn pause(self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        while let left = time.saturating_sub(begun.elapsed())
            && !left.is_zero()
        {
            self.wait_beside([], left)?;
        }
        self.check()
    }

    /// Waits until one of `others` can be read, for up to `most`.
    pub fn wait_beside<'b>(self, others: impl IntoIterator<Item = BorrowedFd<'b>>, most: Duration) -> Result<()> {
        let mut fds = vec![PollFd::new(self.0, PollFlags::POLLIN)];
        fds.extend(others.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        poll(&mut fds, Some(most)).map_err(|e| Error::system("wait for the processes of a measurement", e))?;
        if fds[0].any() == Some(true) { Err(Failure::Stopped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_wish_that_came_stays() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let stop = Stop::when_readable(&reader);
        assert!(!stop.came());
        stop.pause(Duration::from_millis(1)).unwrap();
        writer.write_all(b"x").unwrap();
        for _ in 0..2 {
            assert!(stop.came());
            assert!(matches!(stop.pause(Duration::from_secs(1000)), Err(Failure::Stopped)));
        }
    }
}
