//! Process-shared semaphores in memory that a hostile process may write.
//!
//! A cell holds a `sem_t` as glibc lays it out on 64-bit Linux, so a C program may use `sem_wait` and `sem_post` on it:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | low half: the value; high half: the number of waiters |
//! | 8 | 4 | `private`: the kind of futex operation that glibc uses |
//! | 12 | 20 | unused |
//!
//! This module still has its own operations. The operations of glibc trust the field `private`: a peer that writes the cell can
//! make `sem_post` on the other side abort the process, or sleep without end. Here that field is written once and never read, a
//! post takes a fixed number of steps, and a wait ends at its deadline whatever the cell holds.
#![allow(unsafe_code)]

use std::mem::{align_of, size_of};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;

use crate::error::{Result, SystemError};
use crate::os::clock;

/// The largest value, as in glibc.
const VALUE_MAX: u64 = 0x7fff_ffff;
/// The half of the word that holds the value.
const VALUE_MASK: u64 = 0xffff_ffff;
/// One waiting thread.
const WAITER: u64 = 1 << 32;
/// A [nudge](Semaphore::nudge) is so many posts at once.
const NUDGE: u64 = 1 << 16;
/// The number of attempts at an exchange. A peer that keeps changing the word makes all of them fail, but no more.
const ATTEMPTS: usize = 64;

const _: () = {
    assert!(cfg!(target_pointer_width = "64"), "glibc's sem_t has another layout on 32-bit machines");
    assert!(size_of::<libc::sem_t>() == 32);
    assert!(size_of::<libc::sem_t>() <= size_of::<SemaphoreCell>());
    assert!(align_of::<libc::sem_t>() <= align_of::<SemaphoreCell>());
};

/// Space for a `sem_t` (32 bytes in glibc on 64-bit Linux) on a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SemaphoreCell {
    /// Opaque; see [`Semaphore`].
    pub opaque: [AtomicU64; 4],
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Somebody posted; the value was taken.
    Posted,
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran in this thread, or the caller of [`watch_unless`](Semaphore::watch_unless) had enough.
    Interrupted,
}

/// A semaphore over a cell in shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Semaphore<'a> {
    cell: &'a SemaphoreCell,
}

impl<'a> Semaphore<'a> {
    /// The semaphore in `cell`, which may still have to be initialised.
    #[must_use]
    pub fn new(cell: &'a SemaphoreCell) -> Self {
        Self { cell }
    }

    fn word(&self) -> &'a AtomicU64 {
        &self.cell.opaque[0]
    }

    /// Makes the cell a process-shared `sem_t` of value 0. Only for a cell that nobody else can see yet.
    ///
    /// # Errors
    /// [`SystemError`] if the C library refuses.
    pub fn init(&self) -> Result<()> {
        let sem = ptr::from_ref(self.cell).cast_mut().cast::<libc::sem_t>();
        // SAFETY: the cell is large enough and aligned (asserted above) and consists of atomics, so it may be written through a
        // shared reference. The caller has not shared it with another thread or process yet.
        match unsafe { libc::sem_init(sem, 1, 0) } {
            0 => Ok(()),
            _ => Err(SystemError::new("initialise a process-shared semaphore", std::io::Error::last_os_error())),
        }
    }

    /// Adds one to the value, and wakes a waiter if there is one. A value that is already the largest stays as it is.
    pub fn post(&self) {
        self.add(1);
    }

    /// Wakes everybody who sleeps although there is a post. A process that was killed in the middle of a post has added to the
    /// value and woken nobody.
    pub fn wake_all(&self) {
        if self.value() > 0 {
            self.wake_sleepers();
        }
    }

    /// Wakes every sleeper, post or not. A sleeper that finds nothing sleeps again.
    pub fn wake_sleepers(&self) {
        let _ = self.futex(libc::FUTEX_WAKE, libc::c_int::MAX as u32, None);
    }

    /// Ends a [`watch_until`](Self::watch_until) of this process, and is no post: it counts in the upper half of the value.
    pub fn nudge(&self) {
        self.add(NUDGE);
    }

    fn add(&self, posts: u64) {
        if self.word().load(Ordering::Relaxed) & VALUE_MASK > VALUE_MAX - posts {
            return;
        }
        // Release pairs with the Acquire in `take`: a thread that takes the post sees what was written before it. This is one
        // addition and not a loop of exchanges, so a peer that keeps changing the word cannot delay the poster. (Before Arm
        // v8.1 an addition is a loop of two instructions, too, but there the processor is fair to both sides.)
        let before = self.word().fetch_add(posts, Ordering::Release);
        if before >= WAITER {
            // The wake-up can fail only if a peer misuses the futex, and then only that peer keeps sleeping.
            let _ = self.futex(libc::FUTEX_WAKE, 1, None);
        }
    }

    /// Takes one if the value is not 0. Never waits.
    #[must_use = "when it is false nothing was taken"]
    pub fn try_wait(&self) -> bool {
        self.take(0)
    }

    /// Waits until a peer posts or `CLOCK_MONOTONIC` reaches `deadline_ns`.
    pub fn wait_until(&self, deadline_ns: u64) -> Wait {
        if self.try_wait() {
            return Wait::Posted;
        }
        self.sleep_until(deadline_ns, || self.take(WAITER).then_some(Wait::Posted))
    }

    /// As [`wait_until`](Self::wait_until), but the post stays, so that a process which comes after this one finds it. Also ends
    /// with a [`nudge`](Self::nudge), which stays, too.
    pub fn watch_until(&self, deadline_ns: u64) -> Wait {
        self.watch_unless(deadline_ns, || false)
    }

    /// As [`watch_until`](Self::watch_until), but ends with [`Wait::Interrupted`] when `is_enough` returns true. The thread that
    /// makes it return true [wakes](Self::wake_sleepers) the sleepers again and again until this call has ended, because a wake-up
    /// just before the sleep is lost.
    ///
    /// A post wakes only one sleeper. So when this returns [`Wait::Posted`] and the post is not for the caller alone, the caller
    /// [wakes](Self::wake_all) the others.
    pub fn watch_unless(&self, deadline_ns: u64, is_enough: impl Fn() -> bool) -> Wait {
        let end = || match () {
            // Acquire pairs with the Release of the post, as in `take`.
            () if self.word().load(Ordering::Acquire) & VALUE_MASK != 0 => Some(Wait::Posted),
            () => is_enough().then_some(Wait::Interrupted),
        };
        if let Some(end) = end() {
            return end;
        }
        self.sleep_until(deadline_ns, || {
            end().inspect(|_| {
                self.word().fetch_sub(WAITER, Ordering::Relaxed);
            })
        })
    }

    /// Sleeps until `end` says how the wait ends and has counted this waiter out, or until the deadline.
    fn sleep_until(&self, deadline_ns: u64, end: impl Fn() -> Option<Wait>) -> Wait {
        let deadline = libc::timespec {
            tv_sec: (deadline_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (deadline_ns % 1_000_000_000) as libc::c_long,
        };
        // This waiter must be counted before the futex looks at the value. Both are accesses to the same word, which no processor
        // reorders, although the kernel looks at only one half of the word. glibc relies on the same.
        self.word().fetch_add(WAITER, Ordering::Relaxed);
        loop {
            if let Some(end) = end() {
                return end;
            }
            let vain = match self.futex(libc::FUTEX_WAIT_BITSET, 0, Some(&deadline)) {
                Err(Errno::EINTR) => Wait::Interrupted,
                // EAGAIN means that the value is not 0. A peer that keeps changing the value cannot extend the wait by that.
                Ok(()) | Err(Errno::EAGAIN) if clock::monotonic_ns() < deadline_ns => continue,
                _ => Wait::TimedOut,
            };
            // A post at the deadline may have woken this waiter and no other. If this waiter left the post, the others would sleep
            // on beside it. A later post finds this waiter awake, and wakes another.
            if let Some(end) = end() {
                return end;
            }
            self.word().fetch_sub(WAITER, Ordering::Relaxed);
            return vain;
        }
    }

    /// The value: the number of posts that can be taken without waiting.
    #[must_use]
    pub fn value(&self) -> u32 {
        (self.word().load(Ordering::Relaxed) & VALUE_MASK) as u32
    }

    /// The number of posts without [nudges](Self::nudge).
    #[must_use]
    pub fn posts(&self) -> u32 {
        self.value() % NUDGE as u32
    }

    /// Takes everything from the value, and returns how much that was. Waiters keep waiting.
    pub fn take_all(&self) -> u32 {
        // Acquire pairs with the Release of each of these posts.
        (self.word().fetch_and(!VALUE_MASK, Ordering::Acquire) & VALUE_MASK) as u32
    }

    /// Takes all nudges, and leaves the posts.
    pub fn take_nudges(&self) {
        self.word().fetch_and(!VALUE_MASK | (NUDGE - 1), Ordering::Acquire);
    }

    /// Takes one from the value and, in the same step, `waiter` from the count of waiters.
    fn take(&self, waiter: u64) -> bool {
        let mut seen = self.word().load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            if seen & VALUE_MASK == 0 {
                return false;
            }
            // Acquire pairs with the Release of `post`. The subtraction wraps, because a peer may have set the count to
            // anything. The exchange is a weak one, because on an Arm processor without the atomic instructions of v8.1 a
            // strong exchange is a loop that a peer can keep going. An exchange that fails for no reason costs a turn of this
            // loop, or in `wait_until` a system call that returns at once.
            let next = (seen - 1).wrapping_sub(waiter);
            match self.word().compare_exchange_weak(seen, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// A futex operation on the value, shared between processes.
    fn futex(&self, operation: libc::c_int, value: u32, deadline: Option<&libc::timespec>) -> nix::Result<()> {
        let half = if cfg!(target_endian = "big") { 4 } else { 0 };
        let address = self.word().as_ptr().cast::<u8>().wrapping_add(half);
        let timeout = deadline.map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `address` is one half of a live, aligned 8-byte atomic. The timeout is null or a live timespec. The kernel
        // changes no memory in these operations.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                address,
                operation,
                value,
                timeout,
                ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            )
        };
        Errno::result(result).map(drop)
    }
}

#[cfg(test)]
mod tests;
