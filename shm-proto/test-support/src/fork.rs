//! Forks of the test's own process.
#![allow(unsafe_code)]

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setgroups, setresgid, setresuid};

use crate::user::NOBODY;

/// A child process, killed if the test does not wait for it.
pub struct Child(Pid, bool);

impl Child {
    pub fn pid(&self) -> u32 {
        self.0.as_raw() as u32
    }

    /// Waits for the end, and returns the exit code. Panics when the child was killed.
    pub fn exit_code(mut self) -> i32 {
        self.1 = true;
        match waitpid(self.0, None).unwrap() {
            WaitStatus::Exited(_, code) => code,
            status => panic!("the child ended with {status:?}"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.1 {
            let _ = kill(self.0, Signal::SIGKILL);
            let _ = waitpid(self.0, None);
        }
    }
}

/// Runs `work` in a fork and exits with its result. `work` must not panic and must take no lock of the test runner.
pub fn in_child(work: impl FnOnce() -> i32) -> Child {
    // SAFETY: only this thread lives on in the child. glibc keeps its allocator usable there, `work` uses nothing else that
    // another thread may hold, and `_exit` runs no code of the test runner.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Child(child, false),
        // SAFETY: ends the process at once.
        ForkResult::Child => unsafe { libc::_exit(work()) },
    }
}

/// Runs `work` in a fork as user and group `nobody` without other groups, and returns its result.
pub fn as_nobody(work: impl FnOnce() -> i32) -> i32 {
    in_child_of_nobody(work).exit_code()
}

/// The same, and does not wait for it.
pub fn in_child_of_nobody(work: impl FnOnce() -> i32) -> Child {
    in_child(|| {
        let (uid, gid) = (Uid::from_raw(NOBODY.uid), Gid::from_raw(NOBODY.gid));
        if setgroups(&[]).is_err() || setresgid(gid, gid, gid).is_err() || setresuid(uid, uid, uid).is_err() {
            return 99;
        }
        // A change of user hides the process from itself; then /proc/self would refuse for another reason.
        if nix::sys::prctl::set_dumpable(true).is_err() {
            return 98;
        }
        work()
    })
}
