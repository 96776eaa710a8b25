//! Descriptors that this process has left to itself across `execve`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::dup;

/// Between the look at a descriptor's flag and the change of it.
static TAKING: Mutex<()> = Mutex::new(());

/// A duplicate that stays open in the program that this process executes next.
///
/// # Errors
/// When there are no descriptors left.
pub fn keep(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(dup(fd)?)
}

/// The descriptor of this number, which the program before this one in the same process has [kept](keep).
///
/// Everything that this program opens itself is close-on-exec. So a descriptor that is not was open before the program began,
/// and nothing in it owns that descriptor. The one that is taken is close-on-exec from then on, and is not given twice.
///
/// # Errors
/// `InvalidInput` for a number that is not open, is one of the standard streams, or was not inherited.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {number} {why}"));
    if number <= 2 {
        return Err(refuse("is a standard stream"));
    }
    let _alone = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the borrow lasts for two calls to fcntl, which accept any number. No memory depends on it.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl(fd, FcntlArg::F_GETFD).map_err(|_| refuse("is not open"))?;
    if FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC) {
        return Err(refuse("is this program's own"));
    }
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and nothing in this program owns it: it lacked the flag that everything opened here has, and this is
    // the one place that takes such a descriptor, with the flag set before anybody else looks.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn a_descriptor_that_was_kept_is_taken_once_and_one_of_the_programs_own_never() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        assert!(take(reader.as_raw_fd()).unwrap_err().to_string().contains("own"));
        let number = keep(writer.as_fd()).unwrap().into_raw_fd();
        let taken = take(number).unwrap();
        assert!(take(number).is_err() && take(1).is_err() && take(1 << 20).is_err());
        File::from(taken).write_all(b"a").unwrap();
        writer.write_all(b"b").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ab");
    }
}
