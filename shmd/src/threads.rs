//! Threads that leave the daemon's signals to its main thread.
//!
//! So a signal that comes while the daemon executes its file anew cannot be taken by a thread that ends with the old program.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The signals that the daemon hears.
pub(crate) fn signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Starts a thread of this name.
///
/// # Errors
/// When the system gives none.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let before = signals().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let spawned = Builder::new().name(name.to_owned()).spawn(work);
    before.thread_set_mask()?;
    spawned
}
