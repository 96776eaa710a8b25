//! Reserving memory and waiting until it is done.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Progress, Reservation, truncate};
use crate::error::{Result, SystemError};
use crate::os::poll::readable;
use crate::os::{clock, memory};
use crate::size::Bytes;

/// Memory is reserved in steps of this many bytes.
const STEP: u64 = 16 << 20;
/// A child that makes no progress for this time is given up.
const STUCK: Duration = Duration::from_secs(30);
/// The time between two looks at whether the wait is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Puts memory behind bytes `from..to` of the object, which makes the object `to` bytes long. A child process does this, so
/// that the kernel does not kill this process if a memory limit is reached. Fails at once if too little memory is known to be
/// free.
///
/// Waits until the memory is reserved, or until `ending` says that it is not wanted any more.
///
/// # Errors
/// [`SystemError`] with what was asked for and what is free. The object is then `from` bytes long. The source is of kind
/// `OutOfMemory`, or what the kernel says.
pub fn in_child(fd: BorrowedFd<'_>, from: u64, to: u64, ending: &AtomicBool) -> Result<()> {
    let asked = to.saturating_sub(from);
    let failed = |free: &memory::Free, source: io::Error| {
        let action = format!("reserve {} of shared memory (free {free})", Bytes(asked));
        SystemError::new(action, source)
    };
    let free = memory::shared(fd);
    if asked > free.bytes {
        return Err(failed(&free, io::Error::new(io::ErrorKind::OutOfMemory, "it does not fit")));
    }
    let mut reservation = Reservation::start(fd, from, to, STEP)?;
    match wait(&mut reservation, ending) {
        Ok(()) => Ok(()),
        Err(error) => {
            // The child ends first. Then the memory that it has taken is given back; no process uses it yet.
            drop(reservation);
            truncate(fd, from)?;
            Err(failed(&memory::shared(fd), error))
        }
    }
}

fn wait(reservation: &mut Reservation, ending: &AtomicBool) -> io::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        if ending.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "it is not wanted any more"));
        }
        match reservation.advance().map_err(io::Error::other)? {
            Progress::Done(_) => return Ok(()),
            Progress::Failed { source, .. } => return Err(source),
            Progress::Reserved(_) | Progress::NotYet => {}
        }
        let until = clock::after(LOOK);
        if readable(reservation.as_fd(), Some(LOOK))? {
            waited = Duration::ZERO;
        } else if clock::monotonic_ns() < until {
            // A signal has ended the wait.
        } else if waited >= STUCK {
            let reason = format!("the process that reserves it made no progress for {} s", STUCK.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        } else {
            waited += LOOK;
        }
    }
}
