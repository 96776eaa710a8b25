//! What the tests of this layer share.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::process::id;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, geteuid, setgroups, setresgid, setresuid};

/// User and group `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// A name that no other test and no other run has.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("shmproto-test-{}-{}-{name}", id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Raises a flag when it goes out of scope, so that a thread which watches the flag ends even if the test fails.
pub(crate) struct Raise<'a>(pub(crate) &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until the condition holds. Panics if it does not hold within a minute.
#[track_caller]
pub(crate) fn wait_until(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A program that sleeps for longer than any test takes. It is killed at the end of the test.
pub(crate) struct Sleeper(pub(crate) std::process::Child);

impl Sleeper {
    pub(crate) fn start() -> Self {
        Self(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the test may become another user; says so when it has to be skipped.
pub(crate) fn may_change_user() -> bool {
    if !geteuid().is_root() {
        println!("skipped: only root can become another user");
    }
    geteuid().is_root()
}

/// A child process, killed if the test does not wait for it.
pub(crate) struct Child(Pid, bool);

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        self.0.as_raw() as u32
    }

    /// Its exit code; a panic when it was killed.
    pub(crate) fn exit_code(mut self) -> i32 {
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
            let _ = nix::sys::signal::kill(self.0, nix::sys::signal::SIGKILL);
            let _ = waitpid(self.0, None);
        }
    }
}

/// Runs `work` in a fork; the exit code is the work's result. It must not panic and take no lock of the test harness.
pub(crate) fn in_child(work: impl FnOnce() -> i32) -> Child {
    // SAFETY: only this thread lives on in the child. glibc keeps its allocator usable there, the work uses nothing
    // else that another thread may hold, and `_exit` runs nothing of the harness.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Child(child, false),
        // SAFETY: ends the process at once.
        ForkResult::Child => unsafe { libc::_exit(work()) },
    }
}

/// As [`in_child`], as user and group `nobody` without other groups.
pub(crate) fn as_nobody(work: impl FnOnce() -> i32) -> i32 {
    in_child(|| {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        if setgroups(&[]).is_err() || setresgid(gid, gid, gid).is_err() || setresuid(uid, uid, uid).is_err() {
            return 99;
        }
        // A change of user hides the process from itself; then /proc/self would refuse for another reason.
        if nix::sys::prctl::set_dumpable(true).is_err() {
            return 98;
        }
        work()
    })
    .exit_code()
}

/// Waits until something is so. Whatever depends on a descriptor's being closed may take a moment: a child that another test
/// forked meanwhile has a copy until it ends.
pub(crate) fn eventually(mut so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !so() {
        assert!(std::time::Instant::now() < until, "waited in vain");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// An anonymous file that holds nothing yet.
pub(crate) fn memory(name: &str) -> OwnedFd {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap()
}

/// The name of a shared memory object for one test; unlinked when dropped.
pub(crate) struct Object(pub(crate) String);

impl Object {
    pub(crate) fn new(name: &str) -> Self {
        Self(format!("/{}", unique(name)))
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        format!("/dev/shm{}", self.0).into()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = nix::sys::mman::shm_unlink(self.0.as_str());
    }
}
