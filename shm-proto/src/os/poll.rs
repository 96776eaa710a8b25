//! Waiting until a descriptor is ready.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
pub use nix::poll::{PollFd, PollFlags};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
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
pub fn readable(fd: BorrowedFd<'_>, most: Option<Duration>) -> nix::Result<bool> {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], most)
}

/// Descriptors behind a descriptor of its own, an epoll instance: it is readable while at least one of them is.
#[derive(Debug)]
pub struct PollSet(Epoll);

impl PollSet {
    /// An empty set.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> nix::Result<Self> {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(PollSet)
    }

    /// Adds a descriptor, unless it is in the set. The kernel removes it when its last copy is closed, which a child of this
    /// process may have.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn add(&self, fd: impl AsFd) -> nix::Result<()> {
        match self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            failed => failed,
        }
    }

    /// Removes a descriptor, which need not be in the set.
    pub fn remove(&self, fd: impl AsFd) {
        let _ = self.0.delete(fd);
    }
}

/// The place of a descriptor in a set, which another descriptor may take over. The set has a copy: a descriptor that is closed stays
/// in a set while a child of this process has a copy, and only through an open one can it be removed.
#[derive(Debug, Default)]
pub struct Watched(Option<OwnedFd>);

impl Watched {
    /// Watches `fd` from now on, in place of the descriptor before.
    ///
    /// # Errors
    /// As [`PollSet::add`].
    pub fn put(&mut self, set: &PollSet, fd: Option<BorrowedFd<'_>>) -> nix::Result<()> {
        if let Some(before) = self.0.take() {
            set.remove(before);
        }
        let Some(fd) = fd else { return Ok(()) };
        match fd.try_clone_to_owned() {
            Ok(copy) => set.add(self.0.insert(copy)),
            // This process has no descriptor left. Without a child, the kernel removes this one when it is closed.
            Err(_) => set.add(fd),
        }
    }
}

impl AsFd for PollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
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

    #[test]
    fn a_set_is_readable_while_one_of_its_descriptors_is() {
        let (set, pipes) = (PollSet::new().unwrap(), [(); 2].map(|()| std::io::pipe().unwrap()));
        for (reader, _) in &pipes {
            set.add(reader).unwrap();
            set.add(reader).unwrap();
        }
        let is_readable = || readable(set.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!is_readable());
        (&pipes[1].1).write_all(b"x").unwrap();
        assert!(is_readable() && is_readable());
        for _ in 0..2 {
            set.remove(&pipes[1].0);
            assert!(!is_readable());
        }
    }

    #[test]
    fn a_place_in_a_set_is_free_for_another_descriptor_whoever_has_a_copy_of_the_one_before() {
        let (set, mut place) = (PollSet::new().unwrap(), Watched::default());
        let is_readable = || readable(set.as_fd(), Some(Duration::ZERO)).unwrap();
        let (before, ended) = std::io::pipe().unwrap();
        place.put(&set, Some(before.as_fd())).unwrap();
        // As a child has it.
        let copy = before.try_clone().unwrap();
        drop((before, ended));
        assert!(is_readable());
        let (after, mut theirs) = std::io::pipe().unwrap();
        place.put(&set, Some(after.as_fd())).unwrap();
        assert!(!is_readable());
        theirs.write_all(b"x").unwrap();
        assert!(is_readable());
        place.put(&set, None).unwrap();
        assert!(!is_readable());
        drop((copy, after));
    }
}
