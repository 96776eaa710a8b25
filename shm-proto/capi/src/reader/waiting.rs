//! How a reader waits, and the descriptor to wait on beside others.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use shm_proto::WaitStrategy;

use super::ShmdReader;
use crate::arguments::{out, put, text};
use crate::failure::Failure;
use crate::result::{ERR_UNSUPPORTED, NONE, OK, finish};
use crate::source::Source;

const ADAPTIVE: c_int = 0;
const SLEEP: c_int = 1;
const SPIN: c_int = 2;

fn strategy(wait: c_int, spin_ns: i64) -> Result<WaitStrategy, Failure> {
    match wait {
        ADAPTIVE => Ok(WaitStrategy::Adaptive),
        SLEEP => Ok(WaitStrategy::Sleep),
        SPIN => {
            let time = u64::try_from(spin_ns).ok().map(Duration::from_nanos);
            time.and_then(WaitStrategy::spinning).ok_or_else(|| {
                Failure::invalid(format!("spin_ns is {spin_ns}, and has to be 1000 (1 us) to 1000000000 (1 s)"))
            })
        }
        other => {
            let ways = "SHMD_WAIT_ADAPTIVE, SHMD_WAIT_SLEEP or SHMD_WAIT_SPIN";
            Err(Failure::invalid(format!("wait is {other}, and has to be {ways}")))
        }
    }
}

impl ShmdReader {
    fn wait_strategy(&self) -> WaitStrategy {
        if let Some(reader) = self.held.reader() {
            return reader.wait_strategy();
        }
        match &self.source {
            // SAFETY: nothing of the reader is lent, and nothing of this borrow is kept.
            Source::Ring(ring) => unsafe { ring.borrow() }.wait_strategy(),
            // SAFETY: as above.
            Source::Follower(follower, _) => unsafe { follower.borrow() }.wait_strategy(),
            Source::Handoff(_) => WaitStrategy::Sleep,
        }
    }
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_set_wait(reader: *mut ShmdReader, wait: c_int, spin_ns: i64) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, strategy) = (unsafe { ShmdReader::idle(reader)? }, strategy(wait, spin_ns)?);
        match &reader.source {
            // SAFETY: nothing is open, and nothing of this borrow is kept.
            Source::Ring(ring) => unsafe { ring.borrow() }.set_wait_strategy(strategy),
            // SAFETY: as above.
            Source::Follower(follower, _) => unsafe { follower.borrow() }.set_wait_strategy(strategy),
            Source::Handoff(_) => {
                let message = "a reader of a handoff channel always sleeps: it waits for a semaphore";
                return Err(Failure::new(ERR_UNSUPPORTED, message));
            }
        }
        Ok(OK)
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; the others are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_wait_get(reader: *const ShmdReader, wait: *mut c_int, spin_ns: *mut i64) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, place) = unsafe { (ShmdReader::seen(reader)?, out(wait, "wait")?) };
        let (way, ns) = match reader.wait_strategy() {
            WaitStrategy::Spin(time) => (SPIN, i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)),
            WaitStrategy::Sleep => (SLEEP, 0),
            _ => (ADAPTIVE, 0),
        };
        *place = way;
        // SAFETY: promised by the caller.
        unsafe { put(spin_ns, ns) };
        Ok(OK)
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `status` is NULL or a string that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_set_status(reader: *mut ShmdReader, status: *const c_char) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, status) = unsafe { (ShmdReader::idle(reader)?, text(status, "status")?.unwrap_or_default()) };
        let is_taken = match &reader.source {
            // SAFETY: nothing is open, and nothing of this borrow is kept.
            Source::Ring(ring) => unsafe { ring.borrow() }.set_status(status),
            // SAFETY: as above.
            Source::Follower(follower, _) => unsafe { follower.borrow() }.set_status(status),
            Source::Handoff(_) => {
                return Err(Failure::new(ERR_UNSUPPORTED, "readers of a handoff channel have no status"));
            }
        };
        Ok(if is_taken { OK } else { NONE })
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `fd` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_fd(reader: *mut ShmdReader, fd: *mut c_int) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, place) = unsafe { (ShmdReader::usable(reader)?, out(fd, "fd")?) };
        let lender = reader.held.reader();
        *place = match &mut reader.source {
            Source::Follower(_, fd) => *fd,
            Source::Handoff(reader) => reader.descriptor()?.as_raw_fd(),
            Source::Ring(ring) => match lender {
                Some(reader) => reader.as_fd().as_raw_fd(),
                // SAFETY: nothing is lent, and nothing of this borrow is kept.
                None => unsafe { ring.borrow() }.as_fd().as_raw_fd(),
            },
        };
        Ok(OK)
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_arm(reader: *mut ShmdReader) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let reader = unsafe { ShmdReader::idle(reader)? };
        // A message of a handoff that did not fit into the program's memory is still to be received.
        if reader.kept.is_some() {
            return Ok(NONE);
        }
        let sleeps = match &mut reader.source {
            // SAFETY: nothing is open, and nothing of this borrow is kept.
            Source::Ring(ring) => unsafe { ring.borrow() }.arm()?,
            // SAFETY: as above.
            Source::Follower(follower, _) => unsafe { follower.borrow() }.arm()?,
            Source::Handoff(reader) => reader.arm()?,
        };
        Ok(if sleeps { OK } else { NONE })
    })())
}
