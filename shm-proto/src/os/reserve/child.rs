//! The child that reserves memory. It makes only async-signal-safe calls, with numbers and local buffers.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use nix::libc;

/// In a record from the child: the rest is an `errno`, not a length.
pub(super) const FAILED: u64 = 1 << 63;

/// What the child needs, as plain numbers. The child must not allocate, because another thread may have held the lock of the
/// allocator at the fork.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) object: RawFd,
    pub(super) report: RawFd,
    pub(super) parent: libc::pid_t,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) step: u64,
}

impl Plan {
    /// Everything that the child does.
    pub(super) fn carry_out(self) -> ! {
        // SAFETY: all calls from here on are async-signal-safe and take only numbers and live local buffers. Nothing allocates,
        // takes a lock or can panic. `_exit` runs no destructors of the parent.
        unsafe {
            self.become_expendable();
            let mut at = self.from;
            while at < self.to {
                let len = self.step.max(4096).min(self.to - at);
                if libc::fallocate(self.object, 0, at as libc::off_t, len as libc::off_t) == 0 {
                    at += len;
                    self.tell(at);
                } else if *libc::__errno_location() != libc::EINTR {
                    self.tell(FAILED | *libc::__errno_location() as u64);
                    libc::_exit(1);
                }
            }
            libc::_exit(0)
        }
    }

    /// # Safety
    /// Only in the child of a fork.
    unsafe fn become_expendable(self) {
        // SAFETY: as in `carry_out`; the handlers and the mask are the child's own copies.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != self.parent {
                libc::_exit(1);
            }
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            // Copies of the parent's sockets would keep connections open that the parent closes.
            let (low, high) = (self.object.min(self.report), self.object.max(self.report));
            self.close_between(-1, low);
            self.close_between(low, high);
            self.close_between(high, RawFd::MAX);
            let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if score >= 0 {
                libc::write(score, c"1000".as_ptr().cast(), 4);
                libc::close(score);
            }
        }
    }

    /// Closes the descriptors between the two, both excluded. Kernels before 5.9 cannot; there they stay open.
    ///
    /// # Safety
    /// Only in the child of a fork.
    unsafe fn close_between(self, low: RawFd, high: RawFd) {
        if high - 1 > low {
            // SAFETY: plain numbers; the child uses none of these descriptors.
            unsafe { libc::syscall(libc::SYS_close_range, (low + 1) as u32, (high - 1) as u32, 0) };
        }
    }

    /// # Safety
    /// Only in the child of a fork.
    unsafe fn tell(self, record: u64) {
        let bytes = record.to_le_bytes();
        // SAFETY: a live local buffer of the given length. Eight bytes go into a pipe whole or not at all.
        unsafe {
            while libc::write(self.report, bytes.as_ptr().cast(), bytes.len()) < 0 {
                if *libc::__errno_location() != libc::EINTR {
                    libc::_exit(1);
                }
            }
        }
    }
}
