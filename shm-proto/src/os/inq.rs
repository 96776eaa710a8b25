//! How much a socket or a pipe has to read.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Bytes that can be read from a stream socket or a pipe without waiting.
///
/// # Errors
/// What the system says.
pub fn readable_bytes(fd: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request stores one int, and `bytes` is one that lives.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
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
}
