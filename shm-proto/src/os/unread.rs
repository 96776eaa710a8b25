//! The bytes that a socket or a pipe has to read, and the bytes that were sent and that the other side has not read.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Bytes that can be read from a stream socket or a pipe without waiting.
///
/// # Errors
/// What the system says.
pub fn readable_bytes(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    ask(fd, libc::FIONREAD)
}

/// Bytes of memory for what was sent on a Unix socket and the other side has not read yet. The kernel frees the memory of each
/// send when all of that send has been read.
///
/// # Errors
/// What the system says.
pub(crate) fn unread_by_peer(sock: BorrowedFd<'_>) -> nix::Result<usize> {
    ask(sock, libc::TIOCOUTQ)
}

fn ask(fd: BorrowedFd<'_>, request: libc::Ioctl) -> nix::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests store one int, and `bytes` is a live int.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_written_and_not_read_is_counted() {
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(readable_bytes(ours.as_fd()), Ok(0));
        theirs.write_all(&[0; 1000]).unwrap();
        theirs.write_all(&[0; 234]).unwrap();
        ours.read_exact(&mut [0; 34]).unwrap();
        assert_eq!(readable_bytes(ours.as_fd()), Ok(1200));
        assert!(readable_bytes(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }

    #[test]
    fn what_the_peer_has_not_read_is_counted_by_the_piece() {
        let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(theirs.as_fd()), Ok(0));
        theirs.write_all(&[0; 1000]).unwrap();
        let one = unread_by_peer(theirs.as_fd()).unwrap();
        theirs.write_all(&[0; 1000]).unwrap();
        let two = unread_by_peer(theirs.as_fd()).unwrap();
        assert!(one >= 1000 && two > one, "{one} {two}");
        ours.read_exact(&mut [0; 1500]).unwrap();
        assert_eq!(unread_by_peer(theirs.as_fd()), Ok(two - one));
    }
}
