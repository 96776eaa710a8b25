//! A memory barrier between processes for which one side pays the whole price: `membarrier(2)`, `GLOBAL_EXPEDITED`.
//!
//! The light side, which runs often, calls [`register`] once and then needs only a compiler barrier. The heavy side, which is
//! about to sleep, calls [`heavy`]: every processor that runs a registered process executes a full fence. If the kernel or a
//! sandbox does not allow the call, both sides need fences of their own. x86-64 and 64-bit Arm have the call, with the same
//! promise.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{Ordering, fence};

use nix::libc;

const QUERY: libc::c_long = 0;
const GLOBAL_EXPEDITED: libc::c_long = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_long = 1 << 2;

fn membarrier(command: libc::c_long) -> libc::c_long {
    // SAFETY: the call takes plain numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

/// Registers this process for [`heavy`] until `exec`. The answer is remembered.
///
/// Returns `false` if the kernel refuses: then this process must not be the light side.
pub fn register() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| available() && membarrier(REGISTER_GLOBAL_EXPEDITED) == 0)
}

/// Whether [`heavy`] is more than a fence here. The answer is remembered.
#[must_use]
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let commands = membarrier(QUERY);
        commands > 0 && commands & GLOBAL_EXPEDITED != 0 && commands & REGISTER_GLOBAL_EXPEDITED != 0
    })
}

/// A full fence in this thread and in every running thread of every registered process; only in this thread if not [`available`].
///
/// Pairs with a compiler fence on the light side: either that side's store before its fence is visible after this
/// call, or this side's store before this call is visible after that fence.
pub fn heavy() {
    fence(Ordering::SeqCst);
    if available() {
        membarrier(GLOBAL_EXPEDITED);
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_with_the_barrier_lets_this_process_register() {
        if !available() {
            println!("skipped: no membarrier(GLOBAL_EXPEDITED) here");
        }
        assert_eq!(register(), available());
        assert_eq!(register(), available(), "the remembered answer is the same");
        heavy();
    }
}
