//! A child that `os.fork()` made has copies of its parent's readers and writers. It must not use them, and it must not end the
//! parent's attachments when it drops them.

use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::prelude::*;

use crate::errors;

/// How many forks lie between the process that loaded the module and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Called in each child by `os.register_at_fork`.
#[pyfunction]
pub(crate) fn _forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process that made an object.
#[derive(Debug)]
pub(crate) struct Home(u32);

impl Home {
    pub(crate) fn new() -> Home {
        Home(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this is the process that made the object.
    #[inline(always)]
    pub(crate) fn is_here(&self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }

    /// Fails in a child of the process that made the object.
    #[inline(always)]
    pub(crate) fn check(&self, what: &str) -> PyResult<()> {
        if self.is_here() { Ok(()) } else { Err(errors::forked(what)) }
    }

    /// Drops a reader or a writer; in a child, only forgets it: what a drop tells the daemon and the peers is the parent's.
    pub(crate) fn drop<T>(&self, value: T) {
        if !self.is_here() {
            mem::forget(value);
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let forked = wrap_pyfunction!(_forked, module)?;
    let kwargs = pyo3::types::PyDict::new(module.py());
    kwargs.set_item("after_in_child", forked)?;
    module.py().import("os")?.call_method("register_at_fork", (), Some(&kwargs))?;
    Ok(())
}
