//! Waiting for conditions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use shm_proto::internal::os::clock::{self, monotonic_ns};

/// Whatever takes longer hangs. Nothing is expected to take a thousandth of this time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a test waits for: a text, or a function that makes the text when the condition never holds.
pub trait What {
    fn text(&self) -> String;
}

impl What for &str {
    fn text(&self) -> String {
        (*self).to_owned()
    }
}

impl What for &String {
    fn text(&self) -> String {
        (*self).clone()
    }
}

impl<F: Fn() -> String> What for F {
    fn text(&self) -> String {
        self()
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: impl What, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until `look` finds something.
#[track_caller]
pub fn wait_for<T>(what: impl What, mut look: impl FnMut() -> Option<T>) -> T {
    let end = soon();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(monotonic_ns() < end, "waited {PATIENCE:?} in vain: {}", what.text());
        sleep(Duration::from_millis(1));
    }
}

/// The moment at which patience ends, for calls that take a deadline.
pub fn soon() -> u64 {
    clock::after(PATIENCE)
}

/// The result of a thread that has to end by itself.
#[track_caller]
pub fn joined<T>(thread: JoinHandle<T>) -> T {
    wait_until("a thread of the test ends", || thread.is_finished());
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Raises a flag at the end of a scope, also when the test fails: the thread that looks at the flag ends with the test.
pub struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Lets one test run at a time among those that move gigabytes: two of them on few processors only take turns.
pub fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
