//! The end of a writer: asked for from another thread, and carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Writer;
use crate::error::Result;
use crate::os::named_sem::NamedSemaphore;

/// Ends a writer's wait from another thread.
#[derive(Clone, Debug)]
pub struct Waker {
    pub(super) done: Arc<NamedSemaphore>,
    pub(super) woken: Arc<AtomicBool>,
    pub(super) ending: Arc<AtomicBool>,
}

impl Waker {
    /// Makes [`Writer::progress`] return [`Progress::Waiting`](super::Progress::Waiting), now or at its next call.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::Release) {
            self.done.post();
        }
    }

    /// Wakes the writer as [`wake`](Self::wake) does, and breaks off a growth that is under way, now and from now on: for a
    /// writer that is about to be dropped. A wait for the mutex goes on for as long as it takes, a second at most.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.wake();
    }
}

impl Writer {
    /// Withdraws what is on offer and removes the objects, as dropping does, and says whether that could be done.
    ///
    /// # Errors
    /// When an object could not be removed.
    pub fn close(mut self) -> Result<()> {
        self.remove()
    }

    /// The second time does nothing.
    fn remove(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.removed, true) {
            return Ok(());
        }
        if let Err(error) = self.withdraw() {
            log::debug!("event=handoff-left segment={} reason={:?}", self.settings.names.segment, error.to_string());
        }
        self.objects.unlink()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            log::warn!("event=unlink-failed segment={} reason={:?}", self.settings.names.segment, error.to_string());
        }
    }
}
