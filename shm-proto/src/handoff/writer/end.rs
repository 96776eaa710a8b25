//! The end of a writer: another thread asks for it, and the writer carries it out.

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
            self.done.nudge();
        }
    }

    /// Wakes the writer as [`wake`](Self::wake) does, and aborts growths from now on, including one that is under way. For a
    /// writer that is about to be dropped. A wait for the mutex is not ended, but takes at most a second.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
        self.wake();
    }
}

impl Writer {
    /// Withdraws the message on offer and removes the objects, as dropping the writer does, and returns errors.
    ///
    /// # Errors
    /// If an object could not be removed.
    pub fn close(mut self) -> Result<()> {
        self.remove()
    }

    /// Leaves objects that were adopted to the next writer, as they are, and removes others.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn leave_adopted(mut self) -> Result<()> {
        self.removed = self.is_adopted;
        self.remove()
    }

    /// A second call does nothing.
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
