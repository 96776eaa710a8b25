//! A `pthread_mutex_t` between processes that survives the death of its holder.
//!
//! These are the operations of the C library, because C programs use them on the same mutex. The operations trust the memory of
//! the mutex: every process that can write it can make a call of another process fail, wait until its deadline or abort. So the
//! mutex is for peers that trust each other. They must share one PID namespace, because the mutex names its holder by thread
//! number.
//!
//! | offset | bytes | field (glibc, 64-bit) |
//! |---|---|---|
//! | 0 | 4 | the lock: holder's thread number, waiters flag, owner-died flag |
//! | 8 | 4 | thread number of the holder |
//! | 16 | 4 | kind: type, robust (16), process-shared (128) |
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::{align_of, size_of};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc::{self, c_int, clockid_t, pthread_mutex_t, timespec};

use crate::error::{Result, SystemError};

unsafe extern "C" {
    // glibc 2.30. The libc crate does not declare it.
    fn pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, deadline: *const timespec) -> c_int;
}

/// The bits that the kind of a mutex of the protocol may have: a type from 0 to 3, robust, process-shared.
const KNOWN_KIND: u32 = 3 | ROBUST | SHARED;
const ROBUST: u32 = 16;
const SHARED: u32 = 128;
/// The thread number in the lock word; above it are the waiters flag and the owner-died flag.
const THREAD: u32 = 0x3fff_ffff;

/// `sizeof(pthread_mutex_t)` in glibc, in bytes. Every layout that begins with a mutex follows from this number, and it is the
/// only one that differs between processors.
pub const MUTEX_BYTES: usize = {
    #[cfg(target_arch = "x86_64")]
    {
        40
    }
    #[cfg(target_arch = "aarch64")]
    {
        48
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        compile_error!(
            "the size of glibc's pthread_mutex_t is known for x86-64 and 64-bit Arm only: add a column to the tables"
        )
    }
};

/// The place of a mutex in shared memory: [`MUTEX_BYTES`].
#[repr(C)]
#[derive(Debug, Default)]
pub struct MutexCell {
    opaque: [AtomicU64; MUTEX_BYTES / size_of::<u64>()],
}

const _: () = {
    assert!(size_of::<MutexCell>() == MUTEX_BYTES);
    assert!(size_of::<pthread_mutex_t>() == MUTEX_BYTES, "not glibc's 64-bit pthread_mutex_t");
    assert!(align_of::<pthread_mutex_t>() <= align_of::<MutexCell>());
};

/// How an attempt to take the mutex ended.
#[derive(Debug)]
#[must_use]
pub enum Lock<'a> {
    /// It is held until the guard is dropped.
    Held(Guard<'a>),
    /// The deadline passed first.
    TimedOut,
    /// The holder died, and a later holder released the mutex without repairing it. Only [`RobustMutex::init`] helps.
    Unrecoverable,
}

/// A mutex over a cell in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct RobustMutex<'a> {
    cell: &'a MutexCell,
}

impl<'a> RobustMutex<'a> {
    /// The mutex in `cell`, which may still have to be initialised.
    #[must_use]
    pub fn new(cell: &'a MutexCell) -> Self {
        Self { cell }
    }

    fn ptr(self) -> *mut pthread_mutex_t {
        ptr::from_ref(self.cell).cast_mut().cast()
    }

    /// Makes the cell an unlocked mutex, process-shared and robust. Only the owner may call this, either before any process uses
    /// the mutex or once it is [`Lock::Unrecoverable`]: then every call on it fails at once, so no process holds it.
    ///
    /// # Errors
    /// [`SystemError`] when the C library refuses.
    pub fn init(self) -> Result<()> {
        // SAFETY: an all-zero attribute object is what `init` overwrites; the pointers are live for each call. The cell
        // is large and aligned enough (asserted above) and consists of atomics, so it may be written through a shared
        // reference.
        let code = unsafe {
            let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
            let made = libc::pthread_mutexattr_init(&mut attributes);
            let steps = [
                made,
                libc::pthread_mutexattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_setrobust(&mut attributes, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutex_init(self.ptr(), &attributes),
            ];
            libc::pthread_mutexattr_destroy(&mut attributes);
            steps.into_iter().find(|&code| code != 0).unwrap_or(0)
        };
        match code {
            0 => Ok(()),
            code => Err(SystemError::new("initialise a process-shared mutex", Errno::from_raw(code))),
        }
    }

    fn half(self, word: usize) -> u32 {
        (self.cell.opaque[word].load(Ordering::Relaxed) & 0xffff_ffff) as u32
    }

    /// Whether the mutex survives the death of its holder. A mutex that was initialised without `pthread_mutexattr_setrobust`
    /// does not.
    #[must_use]
    pub(crate) fn is_robust(self) -> bool {
        self.half(2) & ROBUST != 0
    }

    /// Whether the kind is one that these operations are meant for.
    #[must_use]
    pub(crate) fn is_sane(self) -> bool {
        self.half(2) & !KNOWN_KIND == 0
    }

    /// The number of the thread that holds the mutex now. The main thread of a process has the number of the process.
    #[must_use]
    pub fn holder(self) -> Option<u32> {
        // The first word of a mutex that is not robust says only "locked" and "waited for".
        let thread = if self.is_robust() { self.half(0) & THREAD } else { self.half(1) };
        (self.half(0) & THREAD != 0 && thread != 0).then_some(thread)
    }

    /// Takes the mutex. Waits until `CLOCK_MONOTONIC` reaches `deadline_ns` at the latest. If the holder has died, the mutex is
    /// repaired first, and the guard says so.
    ///
    /// # Errors
    /// [`SystemError`] for any other error of the C library, such as `EDEADLK` or `EINVAL` on memory that holds no mutex.
    pub(crate) fn lock_until(self, deadline_ns: u64) -> Result<Lock<'a>> {
        let deadline = timespec {
            tv_sec: (deadline_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (deadline_ns % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: the cell is live, large enough and aligned. The peers of a channel trust each other that it holds an
        // initialised mutex.
        let code = unsafe { pthread_mutex_clocklock(self.ptr(), libc::CLOCK_MONOTONIC, &deadline) };
        let recovered = match code {
            0 => false,
            // SAFETY: as above. EOWNERDEAD says that this thread holds the mutex.
            libc::EOWNERDEAD => match unsafe { libc::pthread_mutex_consistent(self.ptr()) } {
                0 => true,
                code => return Err(SystemError::new("repair a mutex whose holder died", Errno::from_raw(code))),
            },
            libc::ETIMEDOUT => return Ok(Lock::TimedOut),
            libc::ENOTRECOVERABLE => return Ok(Lock::Unrecoverable),
            code => return Err(SystemError::new("lock a process-shared mutex", Errno::from_raw(code))),
        };
        Ok(Lock::Held(Guard { mutex: self, recovered, stays_here: PhantomData }))
    }
}

/// The mutex is held by this thread, and released when this is dropped.
#[derive(Debug)]
pub struct Guard<'a> {
    mutex: RobustMutex<'a>,
    recovered: bool,
    /// A mutex is released by the thread that took it.
    stays_here: PhantomData<*const ()>,
}

impl Guard<'_> {
    /// Whether the previous holder died inside; what the mutex protects may be half-done.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.recovered
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: this thread took the mutex, and the cell is still mapped, because the guard borrows it. If a peer has
        // initialised the mutex again meanwhile, the call fails and changes nothing.
        let _ = unsafe { libc::pthread_mutex_unlock(self.mutex.ptr()) };
    }
}

#[cfg(test)]
mod tests;
