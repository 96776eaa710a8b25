//! Descriptors as inputs of a pump.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::{SFlag, fstat};

use crate::error::{Result, SystemError};
use crate::os::poll;
use crate::os::unread::readable_bytes;

/// What a pipe is made to hold. One of the usual 64 KiB holds a message or two of a fast producer, who then goes to sleep for
/// each; with more, producer and reader run side by side.
const PIPE: i32 = 256 << 10;

/// A byte stream that is cut into messages.
pub trait Input: Read {
    /// Bytes that can be read now, where that is known; nothing for what is always readable, such as a file.
    ///
    /// A large message is read straight into its place when all of it is there. Where nothing is known, a read that finds
    /// nothing after the first bytes has to be made up for by a copy.
    fn readable(&self) -> Option<usize>;
}

impl Input for io::Empty {
    fn readable(&self) -> Option<usize> {
        None
    }
}

impl Input for &[u8] {
    fn readable(&self) -> Option<usize> {
        None
    }
}

/// A descriptor that is set not to wait (`O_NONBLOCK`).
#[derive(Debug)]
pub struct NonBlocking<T>(pub T);

impl<T: AsFd> Read for NonBlocking<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.0, into)?)
    }
}

impl<T: AsFd> Input for NonBlocking<T> {
    fn readable(&self) -> Option<usize> {
        readable_bytes(self.0.as_fd()).ok()
    }
}

/// A descriptor whose mode is left alone, because other processes share it: standard input. It is read only when there is
/// something.
#[derive(Debug)]
pub struct Shared<T> {
    fd: T,
    /// A file never makes anybody wait.
    is_file: bool,
}

impl<T: AsFd> Shared<T> {
    /// Reads from `fd`. If it is a pipe it is made to hold more, where the system allows.
    ///
    /// # Errors
    /// [`SystemError`] when it is no open descriptor.
    pub fn new(fd: T) -> Result<Self> {
        let mode = fstat(&fd).map_err(|e| SystemError::new("look at the input", e))?.st_mode;
        widen(&fd);
        Ok(Shared { fd, is_file: SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG })
    }
}

impl<T: AsFd> AsFd for Shared<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T: AsFd> Read for Shared<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.is_file && !poll::readable(self.fd.as_fd(), Some(Duration::ZERO))? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(nix::unistd::read(&self.fd, into)?)
    }
}

impl<T: AsFd> Input for Shared<T> {
    fn readable(&self) -> Option<usize> {
        if self.is_file { None } else { readable_bytes(self.fd.as_fd()).ok() }
    }
}

/// Whether this is a pipe that holds as much as [`widen`] makes a pipe hold. A FIFO keeps its size as long as somebody has it open.
pub fn is_wide(fd: &impl AsFd) -> bool {
    fcntl(fd, FcntlArg::F_GETPIPE_SZ).is_ok_and(|now| now >= PIPE)
}

/// Makes a pipe hold more, if it is a pipe, holds less, and the system allows: it is only a matter of speed.
pub fn widen(fd: &impl AsFd) {
    if fcntl(fd, FcntlArg::F_GETPIPE_SZ).is_ok_and(|now| now < PIPE) {
        // Refused to a user whose pipes hold a lot already, and beyond `fs.pipe-max-size`.
        let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(PIPE));
    }
}
