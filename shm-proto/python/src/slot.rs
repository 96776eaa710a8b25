//! The class `Slot`: filling the ring in place.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMemoryView, PyType};
use shm_proto::WriterError;

use crate::errors;
use crate::publishing::{Published, unless_published};
use crate::views::Space;
use crate::wait::{Deadline, SLICE};
use crate::writer::Writer;

/// Bytes in the ring that a with statement fills and publishes.
#[pyclass(frozen, module = "shmd._shmd")]
#[derive(Debug)]
pub(crate) struct Slot {
    writer: Py<Writer>,
    reserves: usize,
    timeout: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The view of the bytes, inside the with statement.
    view: Option<Py<PyMemoryView>>,
    /// Bytes to publish.
    len: usize,
    /// The channel has dropped the message, and the view is of other memory.
    dropped: bool,
    seq: Option<u64>,
    begun: bool,
}

impl Slot {
    pub(crate) fn new(writer: Py<Writer>, reserves: usize, timeout: Option<Duration>) -> Slot {
        let state = State { view: None, len: reserves, dropped: false, seq: None, begun: false };
        Slot { writer, reserves, timeout, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyMemoryView>>> {
        let shared = &self.writer.get().shared;
        let mut inner = shared.guard.lock()?;
        let writer = shared.writer(&mut inner)?;
        let len = self.reserves;
        let reserved = shared.repeat(py, writer, Deadline::after(self.timeout), |writer, slice| {
            Ok(writer.reserve_within(len, slice)?.map(shm_proto::Slot::hold))
        })?;
        let Some(held) = reserved else { return Ok(None) };
        let mut slot = writer.slot(held);
        let space = Space::new(self.writer.clone_ref(py), &mut slot);
        let address = slot.as_mut_ptr() as usize;
        inner.slot = Some((slot.hold(), address));
        drop(inner);
        let view = Bound::new(py, space).and_then(|space| PyMemoryView::from(space.as_any()));
        if view.is_err() {
            self.abort();
        }
        view.map(Some)
    }

    /// Gives up the bytes. If views are left, the writer refuses calls until they are gone.
    fn abort(&self) {
        if let Ok(mut inner) = self.writer.get().shared.guard.lock() {
            inner.slot = None;
        }
    }

    fn commit(&self, py: Python<'_>, len: usize) -> PyResult<Option<u64>> {
        let shared = &self.writer.get().shared;
        let mut inner = shared.guard.lock()?;
        let slot = shared.slot(&mut inner)?;
        let deadline = Deadline::after(self.timeout);
        let committed = py.detach(move || slot.commit_within(len, SLICE));
        match unless_published(committed.map(Some)).map_err(|e: WriterError| errors::raise(py, e))? {
            Published::Read(seq) => Ok(seq),
            unread @ Published::Unread(_) => {
                let writer = shared.writer(&mut inner)?;
                shared.acknowledged(py, writer, deadline, unread)
            }
        }
    }
}

#[pymethods]
impl Slot {
    /// Reserves the bytes, and returns a writable memoryview of them. They contain whatever was there before.
    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        if std::mem::replace(&mut self.state().begun, true) {
            return Err(PyRuntimeError::new_err("a slot is used once; reserve another one"));
        }
        let reserved = self.reserve(py)?;
        let dropped = reserved.is_none();
        let view = match reserved {
            Some(view) => view,
            None => PyMemoryView::from(PyByteArray::new_with(py, self.reserves, |_| Ok(()))?.as_any())?,
        };
        let mut state = self.state();
        (state.view, state.dropped) = (Some(view.clone().unbind()), dropped);
        Ok(view)
    }

    /// Publishes the bytes, unless the statement ends with an exception.
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyType>>,
        _value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (view, len, dropped) = {
            let mut state = self.state();
            (state.view.take(), state.len, state.dropped)
        };
        let Some(view) = view else { return Ok(()) };
        let released = view.call_method0(py, "release");
        drop(view);
        if dropped {
            return Ok(());
        }
        if kind.is_some() || released.is_err() {
            self.abort();
            // With an exception on its way, the views in its frames are as expected.
            return if kind.is_some() { Ok(()) } else { released.map(drop) };
        }
        self.state().seq = self.commit(py, len)?;
        Ok(())
    }

    /// Publishes only the first n bytes.
    fn truncate(&self, n: usize) -> PyResult<()> {
        if n > self.reserves {
            return Err(PyValueError::new_err(format!(
                "{n} bytes are more than the {} that are reserved",
                self.reserves
            )));
        }
        self.state().len = n;
        Ok(())
    }

    /// The message's number after the with statement; None if it was not published.
    #[getter]
    fn seq(&self) -> Option<u64> {
        self.state().seq
    }

    fn __len__(&self) -> usize {
        self.state().len
    }
}
