//! Whether any other process has a file open. The kernel tells: it gives a write lease only to the one open file description.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

use crate::error::{Result, SystemError};

/// Sets the signal for a lease that is being broken. Not in the `libc` crate.
const F_SETSIG: i32 = 10;

/// Takes a lease on a file of this user, which `file` has open for reading and writing. Returns `false` if any process has
/// another open file description of it, or a lease on it. A process that opens the file from now on waits until `file` is
/// closed, or fails with `EWOULDBLOCK`: close `file` soon.
///
/// # Errors
/// [`SystemError`] if the kernel or the file system gives no leases.
pub(crate) fn is_alone(file: impl AsFd) -> Result<bool> {
    let fd = file.as_fd().as_raw_fd();
    // The kernel sends a signal when another process opens the file. The default, SIGIO, would end this process; SIGURG is
    // ignored.
    // SAFETY: two calls of fcntl with integers and a descriptor that is open.
    let leased = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) == 0
    };
    match Errno::last() {
        _ if leased => Ok(true),
        Errno::EAGAIN => Ok(false),
        error => Err(SystemError::new("ask whether a file is open elsewhere (F_SETLEASE)", error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::shm;
    use shm_test_support::{Object, in_child, wait_until};

    #[test]
    fn a_file_that_is_open_or_mapped_elsewhere_is_not_alone() {
        let name = Object::new("lease");
        drop(shm::create(&name.0, 0o600, None).unwrap());
        let file = shm::open(&name.0, true).unwrap();
        for writable in [false, true] {
            let other = shm::open(&name.0, writable).unwrap();
            assert!(!is_alone(&file).unwrap());
            let mapping = crate::os::map::Mapping::read_only(other.as_fd(), 4096).unwrap();
            drop(other);
            assert!(!is_alone(&file).unwrap(), "a mapping is as good as a descriptor");
            drop(mapping);
        }
        wait_until("nobody else has the file", || is_alone(&file).unwrap());
    }

    #[test]
    fn whoever_opens_it_meanwhile_is_told_to_come_again_and_ends_nobody() {
        let name = Object::new("lease-broken");
        drop(shm::create(&name.0, 0o600, None).unwrap());
        let file = shm::open(&name.0, true).unwrap();
        wait_until("nobody else has the file", || is_alone(&file).unwrap());
        let told = in_child(|| match shm::open(&name.0, true) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            _ => 1,
        });
        assert_eq!(told.exit_code(), 0);
        // The object may go while the lease is held.
        shm::unlink(&name.0).unwrap();
    }
}
