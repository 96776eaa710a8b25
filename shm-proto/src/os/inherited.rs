//! Descriptors that this process has left to itself across `execve`, and sockets that a service manager has left to it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::dup;

/// What systemd puts into the environment beside the sockets that it hands over. It is for the process itself: not for a child, and not
/// for another program that the process executes.
pub const SOCKET_VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The number of the first of these sockets.
const FIRST_SOCKET: RawFd = 3;

/// Why no sockets of a service manager can be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketsError {
    /// The environment speaks of no sockets.
    #[error("systemd handed over no socket: LISTEN_PID or LISTEN_FDS is missing")]
    Missing,
    /// The variables were meant for another process, and this process has inherited them.
    #[error("the sockets are for process {meant} (LISTEN_PID), and this is process {own}")]
    Foreign {
        /// As the environment has it.
        meant: String,
        /// This process.
        own: u32,
    },
    /// The number of sockets is impossible.
    #[error("LISTEN_FDS is {0:?}, and not a number of sockets from 1 to 64")]
    Number(String),
    /// A descriptor is not open, or was not inherited.
    #[error("{0}")]
    Descriptor(String),
}

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

/// The sockets that systemd has handed over to this process, as `sd_listen_fds(3)` describes. Each is given once.
///
/// # Errors
/// See [`SocketsError`].
pub fn sockets() -> Result<Vec<OwnedFd>, SocketsError> {
    let variable = |name: &str| std::env::var(name).ok();
    let count = count(variable("LISTEN_PID"), variable("LISTEN_FDS"), std::process::id())?;
    let taken = (FIRST_SOCKET..).take(count).map(take);
    taken.map(|socket| socket.map_err(|e| SocketsError::Descriptor(e.to_string()))).collect()
}

/// How many there are.
fn count(pid: Option<String>, fds: Option<String>, own: u32) -> Result<usize, SocketsError> {
    let Some((pid, fds)) = pid.zip(fds) else { return Err(SocketsError::Missing) };
    if pid.parse() != Ok(own) {
        return Err(SocketsError::Foreign { meant: pid, own });
    }
    match fds.parse() {
        Ok(count @ 1..=64) => Ok(count),
        _ => Err(SocketsError::Number(fds)),
    }
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

    #[test]
    fn sockets_are_counted_only_if_they_are_for_this_process() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(count(some("7"), some("2"), 7), Ok(2));
        assert_eq!(count(None, some("1"), 7), Err(SocketsError::Missing));
        assert_eq!(count(some("7"), None, 7), Err(SocketsError::Missing));
        assert_eq!(count(some("8"), some("1"), 7), Err(SocketsError::Foreign { meant: "8".to_owned(), own: 7 }));
        for number in ["0", "-1", "65", "many", ""] {
            assert_eq!(count(some("7"), some(number), 7), Err(SocketsError::Number(number.to_owned())));
        }
    }
}
