//! Making the segment longer and shorter under readers that may be C programs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Writer;
use crate::error::{Error, Result};
use crate::handoff::layout::{HEADER_SIZE, PAGE};
use crate::os::reserve::{self, Progress as Reserved, Reservation};

/// From so much on, a child process takes the memory, so that a memory limit kills the child.
const LARGE: u64 = 16 << 20;

/// A child that makes no step of [`LARGE`] bytes for so long is given up, in milliseconds.
const STUCK: u32 = 30_000;

/// How often it is looked whether the writer is to end, in milliseconds.
const LOOK: u16 = 50;

/// What became of a request for another size, in bytes of the whole segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// Before.
    pub old: u64,
    /// Now, or when the message on offer has been acknowledged.
    pub new: u64,
    /// It is to be cut as soon as no message is on offer.
    pub pending: bool,
}

impl Writer {
    /// Makes the segment `bytes` long, rounded up to whole pages, from one page to the largest capacity.
    ///
    /// Longer is at once. Shorter is at once when no message is on offer; otherwise it waits for the acknowledgement. A
    /// reader in C keeps its longer mapping and is not harmed: it touches no more than the header and the message.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when there is not so much memory, [`Error::Locked`], [`Error::System`].
    pub fn resize(&mut self, bytes: u64) -> Result<Resized> {
        let wanted = bytes.max(1).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        let new = wanted.min(self.settings.max_capacity);
        let old = self.len;
        self.shrink_to = None;
        if new > old {
            self.grow(new)?;
        } else if self.offer.is_some() && new < old {
            self.shrink_to = Some(new);
        } else if new < old {
            self.shrink(new)?;
        }
        Ok(Resized { old, new, pending: self.shrink_to.is_some() })
    }

    /// Makes room for a message of `len` bytes: doubles until it fits.
    pub(super) fn make_room(&mut self, len: u64) -> Result<()> {
        let needed = len.saturating_add(HEADER_SIZE);
        if needed <= self.len {
            return Ok(());
        }
        let mut new = self.len;
        while new < needed {
            new = new.saturating_mul(2);
        }
        self.grow(new.min(self.settings.max_capacity))
    }

    /// Only the file grows; `capacity` follows in [`tell_capacity`](Self::tell_capacity).
    fn grow(&mut self, new: u64) -> Result<()> {
        extend(self.objects.segment.fd(), self.len, new, &self.ending).map_err(|error| Error::NoSpace {
            channel: self.settings.names.segment.clone(),
            needed: new,
            capacity: self.len,
            reason: error.to_string(),
        })?;
        self.len = new;
        self.counters.resizes += 1;
        Ok(())
    }

    /// No message is on offer.
    pub(super) fn shrink(&mut self, new: u64) -> Result<()> {
        self.shrink_to = None;
        self.locked(|objects| {
            let capacity = &objects.segment.header().capacity;
            // A reader's mapping is never shorter than the capacity it was told; that stays true.
            capacity.store(capacity.load(Ordering::Relaxed).min(new), Ordering::Relaxed);
            reserve::truncate(objects.segment.fd(), new)
        })??;
        self.len = new;
        self.counters.resizes += 1;
        Ok(())
    }

    /// After an acknowledgement: the reader has seen a file of `len` bytes, so it may be told of them.
    pub(super) fn tell_capacity(&mut self, len: u64) -> Result<()> {
        if self.objects.segment.header().capacity.load(Ordering::Relaxed) == len {
            return Ok(());
        }
        self.locked(|objects| objects.segment.header().capacity.store(len, Ordering::Relaxed))
    }
}

fn extend(file: BorrowedFd<'_>, from: u64, to: u64, ending: &AtomicBool) -> Result<()> {
    if to - from < LARGE {
        return reserve::now(file, to);
    }
    let mut reservation = Reservation::start(file, from, to, LARGE)?;
    let (mut stuck, mut waited) = (None, 0);
    loop {
        if ending.load(Ordering::Acquire) {
            stuck = Some(io::Error::new(io::ErrorKind::Interrupted, "the writer is being ended"));
        }
        let failed = match reservation.advance()? {
            Reserved::Done(_) => return Ok(()),
            Reserved::Failed { source, .. } => Some(source),
            Reserved::Reserved(_) | Reserved::NotYet => None,
        };
        if let Some(source) = failed.or(stuck.take()) {
            // The child is gone first. What it may have taken is given back; nobody has been told of it.
            drop(reservation);
            reserve::truncate(file, from)?;
            return Err(Error::system("reserve shared memory", source));
        }
        match poll(&mut [PollFd::new(reservation.as_fd(), PollFlags::POLLIN)], PollTimeout::from(LOOK)) {
            Ok(0) if waited >= STUCK => {
                let reason = format!("the process that reserves it made no progress for {} s", STUCK / 1000);
                stuck = Some(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            Ok(0) => waited += u32::from(LOOK),
            Ok(_) => waited = 0,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(Error::system("wait for shared memory", error)),
        }
    }
}
