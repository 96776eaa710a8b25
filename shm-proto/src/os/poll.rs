//! Waiting until a descriptor is ready.

use std::time::Duration;

use nix::errno::Errno;
pub use nix::poll::{PollFd, PollFlags};
use nix::sys::time::TimeSpec;

/// In effect without a limit, and in the range of the kernel's numbers: 100 years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Waits until one of the descriptors is ready, for up to `most` (`None`: without a limit). Returns whether one is ready.
///
/// A signal ends the wait early: then no descriptor is ready, and the caller looks again.
///
/// # Errors
/// What the kernel says, other than `EINTR`.
pub fn poll(fds: &mut [PollFd<'_>], most: Option<Duration>) -> nix::Result<bool> {
    // `poll` counts milliseconds: a caller that waits for the rest of a time would spin through the last millisecond.
    let timeout = most.map(|most| TimeSpec::from_duration(most.min(LONGEST)));
    match nix::poll::ppoll(fds, timeout, None) {
        Err(Errno::EINTR) => Ok(false),
        ready => Ok(ready? > 0),
    }
}

/// Waits until this descriptor is readable. See [`poll`].
///
/// # Errors
/// As [`poll`].
pub fn readable(fd: std::os::fd::BorrowedFd<'_>, most: Option<Duration>) -> nix::Result<bool> {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], most)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_ends_when_there_is_input_and_no_sooner_than_its_time() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert_eq!(readable(reader.as_fd(), Some(Duration::ZERO)), Ok(false));
        let begun = Instant::now();
        assert_eq!(readable(reader.as_fd(), Some(Duration::from_micros(1500))), Ok(false));
        assert!(begun.elapsed() >= Duration::from_micros(1500));
        writer.write_all(b"x").unwrap();
        assert_eq!(readable(reader.as_fd(), None), Ok(true));
        assert_eq!(readable(reader.as_fd(), Some(Duration::MAX)), Ok(true));
    }
}
