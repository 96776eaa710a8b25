//! Puts memory behind an object before anyone touches it.
//!
//! `ftruncate` is not enough: on a full tmpfs, or over the limit of a control group, it succeeds, and the first access to a page
//! without memory is a SIGBUS. `fallocate` takes the memory, or fails with `ENOSPC` and leaves the length as it was.
//!
//! A gigabyte takes a fifth of a second, and if a memory limit is reached, the kernel kills a process. So a short-lived child
//! reserves the memory, step by step, with the highest OOM score: the kernel kills the child, and the steps so far remain.
//!
//! For a service: systemd's `OOMPolicy=` must be `continue`, or the child's death stops the whole unit.
#![allow(unsafe_code)]

mod child;
#[cfg(test)]
mod tests;
mod wait;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::stat::fstat;
use nix::sys::statvfs::fstatvfs;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, ftruncate, getpid, pipe2, read};

use self::child::{FAILED, Plan};
use super::retry;
use crate::error::{Result, SystemError};
use crate::size::Bytes;

pub use wait::in_child;

/// How far a reservation has come.
#[derive(Debug)]
pub enum Progress {
    /// The object has memory behind this many bytes now, and the child goes on.
    Reserved(u64),
    /// The object has memory behind all bytes that were asked for: this many.
    Done(u64),
    /// There is no more memory.
    Failed {
        /// Bytes that have memory behind them. The object may be a step longer if the child was killed before it could tell.
        /// [`truncate`] the object to this length, or to the length before.
        reserved: u64,
        /// Why the reservation ended: `ENOSPC`, or an error of kind `OutOfMemory` if the kernel killed the child.
        source: io::Error,
    },
    /// Nothing new.
    NotYet,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    Errno(i32),
    Signal(Signal),
    Exit(i32),
    Unknown,
}

/// A reservation that a child process carries out. Dropping it kills the child; memory that is reserved stays.
#[derive(Debug)]
pub struct Reservation {
    pipe: OwnedFd,
    child: Option<Pid>,
    to: u64,
    reserved: u64,
    errno: Option<i32>,
    end: Option<End>,
}

impl Reservation {
    /// Starts putting memory behind bytes `from..to` of the object, `step` bytes at a time.
    ///
    /// Call this from a thread that lives as long as the process: the kernel kills the child when the thread ends.
    ///
    /// # Errors
    /// [`SystemError`] if the system gives no pipe or no process.
    pub fn start(fd: BorrowedFd<'_>, from: u64, to: u64, step: u64) -> Result<Self> {
        let failed = |error: Errno| {
            SystemError::new(
                format!("start a process that reserves {} at {from}", Bytes(to.saturating_sub(from))),
                error,
            )
        };
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        let plan =
            Plan { object: fd.as_raw_fd(), report: writer.as_raw_fd(), parent: getpid().as_raw(), from, to, step };
        // A signal handler of this program, run in the child, would write to this program's pipes.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(failed)?;
        // SAFETY: the child only runs `Plan::carry_out`, which makes only async-signal-safe calls and never returns.
        let forked = unsafe { fork() };
        if let Ok(ForkResult::Child) = forked {
            plan.carry_out();
        }
        mask.thread_set_mask().map_err(failed)?;
        match forked.map_err(failed)? {
            ForkResult::Parent { child } => {
                Ok(Self { pipe: reader, child: Some(child), to, reserved: from, errno: None, end: None })
            }
            ForkResult::Child => unreachable!("the child never returns"),
        }
    }

    /// The progress since the last call. Never waits. After the end, every call returns the end again.
    ///
    /// # Errors
    /// [`SystemError`] if the pipe cannot be read.
    pub fn advance(&mut self) -> Result<Progress> {
        let before = self.reserved;
        while self.end.is_none() {
            let mut record = [0u8; 8];
            match retry(|| read(&self.pipe, &mut record)) {
                Ok(0) => self.finish(),
                Ok(_) => match u64::from_le_bytes(record) {
                    failure if failure & FAILED != 0 => self.errno = Some((failure & !FAILED) as i32),
                    reserved => self.reserved = reserved,
                },
                Err(Errno::EAGAIN) => break,
                Err(error) => {
                    let action = format!("hear how far the reservation of {} has come", Bytes(self.to));
                    return Err(SystemError::new(action, error));
                }
            }
        }
        Ok(match self.end {
            None if self.reserved > before => Progress::Reserved(self.reserved),
            None => Progress::NotYet,
            Some(End::Done) => Progress::Done(self.to),
            Some(end) => Progress::Failed { reserved: self.reserved, source: end.error() },
        })
    }

    /// The pipe is closed, so the child has ended or is about to.
    fn finish(&mut self) {
        let status = self.child.take().map(|child| retry(|| waitpid(child, None)));
        self.end = Some(match (status, self.errno) {
            _ if self.reserved >= self.to => End::Done,
            (_, Some(errno)) => End::Errno(errno),
            (Some(Ok(WaitStatus::Signaled(_, signal, _))), None) => End::Signal(signal),
            (Some(Ok(WaitStatus::Exited(_, code))), None) => End::Exit(code),
            _ => End::Unknown,
        });
    }
}

impl End {
    fn error(self) -> io::Error {
        match self {
            End::Errno(errno) => io::Error::from_raw_os_error(errno),
            End::Signal(Signal::SIGKILL) => io::Error::new(
                io::ErrorKind::OutOfMemory,
                "the process that reserved it was killed, most likely by the kernel for want of memory: \
                 the limit of the machine or of the control group is reached",
            ),
            End::Signal(signal) => io::Error::other(format!("the process that reserved it was ended by {signal}")),
            End::Exit(code) => io::Error::other(format!("the process that reserved it exited with {code}")),
            End::Done | End::Unknown => io::Error::other("the process that reserved it is gone without a word"),
        }
    }
}

impl AsFd for Reservation {
    /// Readable when [`advance`](Reservation::advance) has something to tell.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // The child has not been reaped, so the number is still its own.
            let _ = kill(child, Signal::SIGKILL);
            let _ = retry(|| waitpid(child, None));
        }
    }
}

/// Puts memory behind the first `len` bytes at once and makes the object at least that long. If a memory limit is reached, the
/// kernel may kill this process, so this is for at most a page, and for measurements. A child reserves everything else: see
/// [`in_child`] and [`Reservation`].
///
/// # Errors
/// [`SystemError`], with the source `ENOSPC` if there is too little memory. The length is then unchanged.
pub fn now(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    retry(|| fallocate(fd, FallocateFlags::empty(), 0, len as i64)).map_err(|error| {
        SystemError::new(
            format!("reserve {}{} of shared memory", Bytes(len), if len.is_multiple_of(1024) { "" } else { " bytes" }),
            error,
        )
    })
}

/// Cuts the object to `len` bytes. An access to what lay above is a SIGBUS.
///
/// # Errors
/// [`SystemError`] when the kernel refuses.
pub fn truncate(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    retry(|| ftruncate(fd, len as i64))
        .map_err(|error| SystemError::new(format!("cut shared memory to {}", Bytes(len)), error))
}

/// Gives the memory behind bytes `from..to` back and keeps the length. A read there gives zeroes, and a write takes memory again.
///
/// # Errors
/// [`SystemError`] when the kernel refuses.
pub fn punch(fd: BorrowedFd<'_>, from: u64, to: u64) -> Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    retry(|| fallocate(fd, flags, from as i64, to.saturating_sub(from) as i64))
        .map_err(|error| SystemError::new(format!("give back the shared memory from {from} to {to}"), error))
}

/// Bytes that the object's file system can still give to this user; `u64::MAX` if it has no limit of its own.
///
/// # Errors
/// [`SystemError`] when the kernel does not tell.
pub fn free(fd: BorrowedFd<'_>) -> Result<u64> {
    let fs = fstatvfs(fd).map_err(|error| SystemError::new("ask how much shared memory is free", error))?;
    // A tmpfs without a limit reports 0 of 0.
    Ok(if fs.blocks() == 0 { u64::MAX } else { fs.blocks_available().saturating_mul(fs.fragment_size()) })
}

/// The object's length in bytes.
///
/// # Errors
/// [`SystemError`] when the kernel does not tell.
pub fn length(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = fstat(fd).map_err(|error| SystemError::new("ask for the length of shared memory", error))?;
    Ok(stat.st_size as u64)
}
