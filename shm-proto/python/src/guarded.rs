//! A reader or a writer as the threads of a program share it: one thread at a time uses it, views of its memory keep it open, and
//! any thread may close it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use pyo3::prelude::*;

use crate::errors;
use crate::fork::Home;

/// What can be closed.
pub(crate) trait Ends {
    /// What can be viewed.
    const VIEWED: &'static str;

    fn has_ended(&self) -> bool;

    /// Ends it. In a child, only the child's copy ends.
    fn end(&mut self, home: &Home);
}

#[derive(Debug)]
pub(crate) struct Guarded<I: Ends> {
    inner: Mutex<I>,
    /// Views of its memory. Raised only under the lock.
    views: AtomicUsize,
    /// Another thread has closed it while it was in use.
    closing: AtomicBool,
    home: Home,
    /// Its name in messages.
    name: String,
}

impl<I: Ends> Guarded<I> {
    pub(crate) fn new(inner: I, name: String) -> Self {
        let (views, closing) = (AtomicUsize::new(0), AtomicBool::new(false));
        Guarded { inner: Mutex::new(inner), views, closing, home: Home::new(), name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The error of a call that comes after the end.
    #[cold]
    pub(crate) fn closed(&self) -> PyErr {
        errors::closed(&self.name)
    }

    /// Whether this is the process that made it.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.home.is_here()
    }

    /// Access, for one thread of the process that made it.
    #[inline]
    pub(crate) fn lock(&self) -> PyResult<MutexGuard<'_, I>> {
        self.home.check(&self.name)?;
        self.try_lock().ok_or_else(|| errors::busy(&self.name))
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, I>> {
        let mut inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if self.is_closing() && self.views() == 0 {
            self.end(&mut inner);
        }
        Some(inner)
    }

    /// Views that are alive. Acquire pairs with the Release in [`end_view`](Self::end_view): what was read or written through a
    /// view happened before.
    #[inline]
    pub(crate) fn views(&self) -> usize {
        self.views.load(Ordering::Acquire)
    }

    /// A view begins. The argument shows that the caller has the lock.
    pub(crate) fn begin_view(&self, _: &mut I) {
        // Relaxed: under the lock.
        self.views.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_view(&self) {
        // Release pairs with the Acquire in `views`.
        self.views.fetch_sub(1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        // Relaxed: the flag says only what to do next.
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self, inner: &mut I) {
        inner.end(&self.home);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.try_lock().is_some_and(|inner| inner.has_ended())
    }

    /// Ends it. If another thread waits in it, that wait ends. In a child, only the child's copy ends.
    pub(crate) fn close(&self) -> PyResult<()> {
        let views = self.views();
        if views != 0 && self.is_here() {
            return Err(errors::viewed(I::VIEWED, views));
        }
        self.close_later();
        Ok(())
    }

    /// The end of a `with`. An exception on its way keeps the views in its frames alive; then the last of them closes it.
    pub(crate) fn leave(&self, failed: bool) -> PyResult<()> {
        if !failed {
            return self.close();
        }
        self.close_later();
        Ok(())
    }

    /// As [`close`](Self::close), but views may be alive: then it is closed when it is dropped.
    fn close_later(&self) {
        if self.is_here() {
            self.closing.store(true, Ordering::Relaxed);
            // Whoever has the lock sees the flag, or the next call does.
            drop(self.try_lock());
        }
    }
}

impl<I: Ends> Drop for Guarded<I> {
    fn drop(&mut self) {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner).end(&self.home);
    }
}
