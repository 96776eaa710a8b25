//! Closing what a peer has sent, without waiting for it.
//!
//! A peer chooses the descriptors that it sends, and closing one may take as long as the peer likes: a TCP socket with `SO_LINGER`
//! whose other side reads nothing, or a file of a FUSE server that does not answer. Looking at the file (`fstat`) may take as long. A
//! descriptor that was sent and never received is closed with the socket in which it lies: see [`hang_up`](super::hang_up).
//!
//! So a process that serves others [names a way](set_closer) to close such things elsewhere. Without one, they are closed at once:
//! the other side of a client is a daemon, which the client trusts.

use std::mem::take;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{FileStat, fstat};

/// Drops a value in a place where that may take any time.
pub type Closer = fn(Box<dyn Send>);

static CLOSER: OnceLock<Closer> = OnceLock::new();

/// From now on, this process closes what peers have sent by `closer`. The first one stays.
pub fn set_closer(closer: Closer) {
    let _ = CLOSER.set(closer);
}

/// Closing this much shared memory takes no time that anybody notices.
const LITTLE: i64 = 64 << 10;

/// Whether it is shared memory: a memfd or an object in a tmpfs. The answer comes from the kernel's memory alone, and so does
/// everything else that is done with such a descriptor, but a lot of memory takes its time to be freed.
#[must_use]
pub fn is_memory(fd: impl AsFd) -> bool {
    // Of no other file does the kernel tell any seals.
    fcntl(fd, FcntlArg::F_GET_SEALS).is_ok()
}

/// Closes descriptors that a peer has sent.
pub fn close(fds: Vec<OwnedFd>) {
    // What has a name is not freed.
    let frees_little = |found: FileStat| found.st_size <= LITTLE || found.st_nlink > 0;
    let is_quick = |fd: &OwnedFd| is_memory(fd) && fstat(fd).is_ok_and(frees_little);
    let slow: Vec<_> = fds.into_iter().filter(|fd| !is_quick(fd)).collect();
    match closer() {
        Some(closer) if !slow.is_empty() => closer(Box::new(Sent(slow))),
        _ => drop(Sent(slow)),
    }
}

/// The closer, if this process has one.
pub(super) fn closer() -> Option<Closer> {
    CLOSER.get().copied()
}

/// Descriptors that a peer has sent. Closing them may still take a while.
pub(super) struct Sent(pub(super) Vec<OwnedFd>);

impl Drop for Sent {
    fn drop(&mut self) {
        for fd in take(&mut self.0) {
            // Only a socket has this. It is the peer's wish to wait, and not this process's.
            let _ = setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use shm_test_support::memory;

    #[test]
    fn memory_is_told_from_what_may_make_its_user_wait() {
        let object = shm_test_support::Object::new("closing");
        assert!(is_memory(memory("closing")));
        assert!(is_memory(crate::os::shm::create(&object.0, 0o600, None).unwrap()));
        assert!(!is_memory(File::open("/dev/null").unwrap()));
        assert!(!is_memory(File::open("/").unwrap()));
        assert!(!is_memory(std::os::unix::net::UnixStream::pair().unwrap().0));
        assert!(!is_memory(nix::unistd::pipe().unwrap().0));
        let path_only = nix::fcntl::open(
            "/dev/null",
            nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        );
        assert!(!is_memory(path_only.unwrap()));
    }
}
