//! The class `Reader`, without the part for asyncio, which is in `shmd/_reader.py`.

use std::path::PathBuf;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};
use shm_proto::{BadContent, Content, Endpoint, Error, Expected, ReaderError, Start, WaitStrategy};

use crate::bulk;
use crate::errors;
use crate::inner::{Shared, Stop};
use crate::views::Message;
use crate::wait::{self, duration};

/// Receives a channel's messages, each exactly once and in order.
#[pyclass(frozen, subclass, module = "shmd._shmd")]
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) shared: Shared,
}

/// The daemon to attach through, if the channel has this content.
pub(crate) fn endpoint_expecting(
    runtime_dir: Option<PathBuf>,
    patience: Option<f64>,
    content: Option<&str>,
    schema: Option<&str>,
) -> PyResult<Endpoint> {
    let bad = |e: BadContent| PyValueError::new_err(e.to_string());
    let expected = match content {
        Some(content) => Some(Expected::new(content, schema).map_err(bad)?),
        None if schema.is_some() => {
            return Err(PyValueError::new_err("schema is given without content, the encoding of the messages"));
        }
        None => None,
    };
    Ok(endpoint(runtime_dir, patience)?.expecting(expected))
}

/// What the daemon has said about a channel's messages, as Python has it.
pub(crate) fn declared<'py>(py: Python<'py>, content: Option<&Content>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(content) = content else { return Ok(None) };
    let json = serde_json::to_string(content).map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
    py.import("json")?.call_method1("loads", (json,)).map(Some)
}

/// Where a daemon is.
pub(crate) fn endpoint(runtime_dir: Option<PathBuf>, patience: Option<f64>) -> PyResult<Endpoint> {
    let endpoint = Endpoint::find(runtime_dir.as_deref());
    Ok(match patience {
        None => endpoint,
        Some(seconds) => endpoint.with_patience(duration(seconds, "patience")?),
    })
}

impl Reader {
    fn raise(&self, py: Python<'_>, stop: Stop) -> PyErr {
        self.shared.raise(py, stop)
    }

    #[cold]
    fn timed_out(&self, py: Python<'_>, timeout: Option<f64>) -> PyErr {
        let waited = wait::timeout(timeout).ok().flatten().unwrap_or_default();
        let what = self.shared.ask(|reader| format!("a message on channel {}", reader.geometry().channel));
        match what {
            Ok(what) => errors::raise(py, ReaderError::TimedOut { what, waited }),
            Err(error) => error,
        }
    }
}

#[pymethods]
impl Reader {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    #[pyo3(signature = (channel=None, *, start="new", content=None, schema=None, wait="adaptive", runtime_dir=None, patience=None))]
    fn new(
        py: Python<'_>,
        channel: Option<String>,
        start: &str,
        content: Option<&str>,
        schema: Option<&str>,
        wait: &str,
        runtime_dir: Option<PathBuf>,
        patience: Option<f64>,
    ) -> PyResult<Reader> {
        let start = match start {
            "new" => Start::New,
            "oldest" => Start::Oldest,
            _ => return Err(PyValueError::new_err(format!("start is {start:?}; it must be \"new\" or \"oldest\""))),
        };
        let strategy: WaitStrategy = wait.parse().map_err(|e| PyValueError::new_err(format!("wait: {e}")))?;
        let endpoint = endpoint_expecting(runtime_dir, patience, content, schema)?;
        let attach = move || shm_proto::Reader::attach(&endpoint, channel.as_deref(), start);
        let mut reader = wait::in_background(py, attach)?.map_err(|e| errors::raise(py, e))?;
        reader.set_wait_strategy(strategy);
        Ok(Reader { shared: Shared::new(reader) })
    }

    /// The next message, or None if there is none yet. Never waits.
    #[inline]
    fn try_recv(slf: &Bound<'_, Self>) -> PyResult<Option<Message>> {
        let shared = &slf.get().shared;
        let mut inner = shared.guard.lock()?;
        match shared.next(&mut inner) {
            Ok(found) => Ok(found.map(|facts| Message::new(slf, facts))),
            Err(stop) => Err(shared.raise(slf.py(), stop)),
        }
    }

    /// Waits for the next message, for up to timeout seconds; without a timeout, with no time limit.
    #[pyo3(signature = (timeout=None))]
    #[inline]
    fn recv(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Message> {
        let (shared, py) = (&slf.get().shared, slf.py());
        let mut inner = shared.guard.lock()?;
        match shared.receive(py, &mut inner, wait::timeout(timeout)?)? {
            Some(facts) => Ok(Message::new(slf, facts)),
            None => {
                drop(inner);
                Err(slf.get().timed_out(py, timeout))
            }
        }
    }

    /// Copies of up to n messages that are available, after waiting for the first one.
    #[pyo3(signature = (n, timeout=None))]
    fn recv_many<'py>(&self, py: Python<'py>, n: usize, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
        bulk::recv_many(py, &self.shared, n, wait::timeout(timeout)?)
    }

    /// A numpy array of up to n messages that are available, each of which is one item.
    #[pyo3(signature = (dtype, n, timeout=None))]
    fn read_array<'py>(
        &self,
        dtype: &Bound<'py, PyAny>,
        n: usize,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        bulk::read_array(&self.shared, dtype, n, wait::timeout(timeout)?)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next message, waiting without a time limit. The iteration ends when the channel is closed.
    #[inline]
    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Message>> {
        let (shared, py) = (&slf.get().shared, slf.py());
        let mut inner = shared.guard.lock()?;
        let found = match shared.next(&mut inner) {
            Ok(Some(facts)) => Ok(Some(facts)),
            Ok(None) => match shared.receive(py, &mut inner, None) {
                Err(error) if errors::is_closed_channel(py, &error) => Ok(None),
                found => found,
            },
            Err(Stop::Failed(Error::Reader(ReaderError::Closed { .. }))) => Ok(None),
            Err(stop) => Err(slf.get().raise(py, stop)),
        };
        Ok(found?.map(|facts| Message::new(slf, facts)))
    }

    /// The descriptor to wait on beside others: readable for as long as there may be something to receive.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.shared.fd(py)
    }

    /// Ends the attachment.
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
        self.shared.ask(|reader| reader.geometry().channel.to_string())
    }

    /// What the channel's messages are, if its configuration declares that: as it was when the reader attached.
    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let content = self.shared.ask(|reader| reader.content().cloned())?;
        declared(py, content.as_ref())
    }

    /// The number of the next message, or of the message that is not finished.
    #[getter]
    fn seq(&self) -> PyResult<u64> {
        self.shared.ask(shm_proto::Reader::seq)
    }

    /// How this reader waits for messages: "adaptive", "sleep" or "spin=TIME".
    #[getter]
    fn wait(&self) -> PyResult<String> {
        self.shared.ask(|reader| reader.wait_strategy().to_string())
    }

    /// Says what the program is doing, for whoever looks at the channel: `shmctl stat` shows it as the reader's status, in at most 100
    /// characters. Empty: nothing any more. Two changes are at least 100 ms apart: False if this one comes too early and has to be
    /// made again later.
    fn set_status(&self, status: &str) -> PyResult<bool> {
        self.shared.change(|reader| reader.set_status(status))
    }

    /// Messages received.
    #[getter]
    fn received(&self) -> PyResult<u64> {
        self.shared.ask(shm_proto::Reader::received)
    }

    /// Messages lost to overwriting since attaching.
    #[getter]
    fn lost(&self) -> PyResult<u64> {
        self.shared.ask(shm_proto::Reader::lost)
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

    fn __repr__(slf: &Bound<'_, Self>) -> String {
        match slf.get().channel() {
            Ok(channel) => format!("<shmd.Reader of channel {channel}>"),
            Err(_) => "<shmd.Reader, closed or in use>".to_owned(),
        }
    }
}
