//! A process that is killed after any instruction.

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::fork::in_child;
use crate::user::skip;

/// Forks; lets the child run until it says [`here`], then instruction by instruction, `steps` of them, and kills it there. False
/// when it said [`here`] again before that.
///
/// `work` must not panic; what it returns is shown when it ends before it has said anything.
pub fn killed_after(steps: u64, work: impl FnOnce() -> i32) -> bool {
    killed_after_and(steps, || (), work)
}

/// The same; `meanwhile` happens when the child has said [`here`], before the first step.
pub fn killed_after_and(steps: u64, meanwhile: impl FnOnce(), work: impl FnOnce() -> i32) -> bool {
    let child = in_child(|| match ptrace::traceme() {
        Ok(()) => work(),
        Err(_) => 97,
    });
    let pid = Pid::from_raw(child.pid().cast_signed());
    match waitpid(pid, None).unwrap() {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        status => panic!("the child does not come to what is to be stepped through: {status:?}"),
    }
    meanwhile();
    for step in 0..steps {
        ptrace::step(pid, None).unwrap();
        match waitpid(pid, None).unwrap() {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, Signal::SIGSTOP) => return false,
            status => panic!("step {step}: {status:?}"),
        }
    }
    // Killed and waited for when it is dropped.
    true
}

/// Where the steps begin, and where they end.
pub fn here() {
    // Outside of a tracer's hands it would stop for good; there is one.
    let _ = raise(Signal::SIGSTOP);
}

/// Whether a process may not be traced here, by a rule of the system or of a container. If so, a note says so.
pub fn skip_without_trace(test: &str) -> bool {
    let refused = in_child(|| i32::from(ptrace::traceme().is_err())).exit_code() != 0;
    if refused {
        skip(test, "ptrace is not permitted here");
    }
    refused
}
