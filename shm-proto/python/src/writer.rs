//! The class `Writer`.

use std::os::fd::AsRawFd;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyType};

use crate::batch::{self, Batch, Done};
use crate::errors;
use crate::publishing::Shared;
use crate::reader::{declared, endpoint_expecting};
use crate::slot::Slot;
use crate::views::Input;
use crate::wait::{self, Deadline};

/// Appends messages to a channel, which has one writer at a time.
#[pyclass(frozen, module = "shmd._shmd")]
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Shared,
}

#[pymethods]
impl Writer {
    #[new]
    #[pyo3(signature = (channel=None, *, content=None, schema=None, runtime_dir=None, patience=None))]
    fn new(
        py: Python<'_>,
        channel: Option<String>,
        content: Option<&str>,
        schema: Option<&str>,
        runtime_dir: Option<PathBuf>,
        patience: Option<f64>,
    ) -> PyResult<Writer> {
        let endpoint = endpoint_expecting(runtime_dir, patience, content, schema)?;
        let attach = move || shm_proto::Writer::attach(&endpoint, channel.as_deref());
        let writer = wait::in_background(py, attach)?.map_err(|e| errors::raise(py, e))?;
        Ok(Writer { shared: Shared::new(writer) })
    }

    /// Publishes the bytes of an object as one message. Returns its number, or None if the channel dropped it.
    #[pyo3(signature = (message, timeout=None))]
    #[inline]
    fn publish(&self, message: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<Option<u64>> {
        let timeout = wait::timeout(timeout)?;
        let input = Input::of(message)?;
        self.shared.publish(message.py(), input.as_slice(), timeout)
    }

    /// Like publish(), but never waits: raises WouldBlockError instead.
    #[inline]
    fn try_publish(&self, message: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let input = Input::of(message)?;
        let mut inner = self.shared.guard.lock()?;
        let published = self.shared.writer(&mut inner)?.try_publish(input.as_slice());
        published.map_err(|e| errors::raise(message.py(), e))
    }

    /// Publishes a message and waits until every attached reader has read it.
    #[pyo3(signature = (message, timeout=None))]
    fn publish_acked(&self, message: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<Option<u64>> {
        let timeout = wait::timeout(timeout)?;
        let input = Input::of(message)?;
        self.shared.publish_acked(message.py(), input.as_slice(), timeout)
    }

    /// Publishes each item of an array, along its first axis, as one message. Returns how many the channel did not drop. An
    /// exception has that number, too: see Error.published.
    #[pyo3(signature = (array, timeout=None))]
    fn publish_array(&self, array: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<u64> {
        let py = array.py();
        let view = PyMemoryView::from(array)?;
        let items: usize = view.call_method0("__len__")?.extract()?;
        let input = Input::of(array)?;
        let bytes = input.as_slice();
        let size = bytes.len().checked_div(items).unwrap_or(0);
        let mut inner = self.shared.guard.lock()?;
        let messages = (0..items).map(|n| &bytes[n * size..][..size]);
        let mut done = Done::default();
        batch::publish(py, &self.shared, &mut inner, messages, wait::timeout(timeout)?, &mut done)?;
        Ok(done.published)
    }

    /// Reserves n bytes in the ring, to be filled in place in a with statement.
    #[pyo3(signature = (n, timeout=None))]
    fn reserve(slf: Bound<'_, Self>, n: usize, timeout: Option<f64>) -> PyResult<Slot> {
        Ok(Slot::new(slf.unbind(), n, wait::timeout(timeout)?))
    }

    /// Messages that become visible together at the end of a with statement.
    #[pyo3(signature = (timeout=None))]
    fn batch(slf: Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Batch> {
        Ok(Batch::new(slf.unbind(), wait::timeout(timeout)?))
    }

    /// Waits until every attached reader has read everything.
    #[pyo3(signature = (timeout=None))]
    fn wait_until_read(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = Deadline::after(wait::timeout(timeout)?);
        let mut inner = self.shared.guard.lock()?;
        let writer = self.shared.writer(&mut inner)?;
        self.shared.wait_until_read(py, writer, deadline)
    }

    /// Handles what the daemon has sent, and shows a sign of life.
    fn maintain(&self, py: Python<'_>) -> PyResult<()> {
        let mut inner = self.shared.guard.lock()?;
        self.shared.writer(&mut inner)?.maintain().map_err(|e| errors::raise(py, e))
    }

    /// The descriptor that is readable when maintain() has something to do. Every call may change it.
    fn fileno(&self) -> PyResult<i32> {
        // As for a closed file, -1 is no descriptor: there is no daemon to hear from.
        self.shared.ask(|writer| writer.link_fd().map_or(-1, |fd| fd.as_raw_fd()))
    }

    /// Gives the writer role back.
    fn close(&self) -> PyResult<()> {
        self.shared.guard.close()
    }

    /// Whether close() was called.
    #[getter]
    fn closed(&self) -> bool {
        self.shared.guard.is_closed()
    }

    /// The channel's name.
    #[getter]
    fn channel(&self) -> PyResult<String> {
        self.shared.ask(|writer| writer.geometry().channel.to_string())
    }

    /// What the channel's messages are, if its configuration declares that: as it was when the writer borrowed the role.
    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let content = self.shared.ask(|writer| writer.content().cloned())?;
        declared(py, content.as_ref())
    }

    /// The largest message, in bytes.
    #[getter]
    fn max_message(&self) -> PyResult<u64> {
        self.shared.ask(|writer| writer.geometry().max_message)
    }

    /// Attached readers.
    #[getter]
    fn readers(&self) -> PyResult<usize> {
        self.shared.ask(shm_proto::Writer::readers)
    }

    /// Messages dropped since the channel was made.
    #[getter]
    fn dropped(&self) -> PyResult<u64> {
        self.shared.ask(shm_proto::Writer::dropped)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        kind: Option<Bound<'_, PyType>>,
        _value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.shared.guard.leave(kind.is_some())
    }

    fn __repr__(&self) -> String {
        match self.channel() {
            Ok(channel) => format!("<shmd.Writer of channel {channel}>"),
            Err(_) => "<shmd.Writer, closed or in use>".to_owned(),
        }
    }
}
