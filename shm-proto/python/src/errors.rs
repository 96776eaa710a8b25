//! The library's errors as exceptions. The classes are in `shmd/_errors.py`.

use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use shm_proto::{Error, ReaderError, RequestError, WriterError};

/// The exception for an error.
pub(crate) fn raise(py: Python<'_>, error: impl Into<Error>) -> PyErr {
    let error = error.into();
    build(py, &error).unwrap_or_else(|failed| failed)
}

fn build(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let text = error.to_string();
    if let Some(errno) = error.system_reason().and_then(std::io::Error::raw_os_error) {
        return Ok(PyErr::from_value(class(py, "SystemCallError")?.call1((errno, text))?));
    }
    let value = class(py, name(error))?.call1((text,))?;
    match error {
        Error::Reader(ReaderError::Lapped { lost, .. }) => value.setattr("lost", lost)?,
        Error::Reader(ReaderError::Withdrawn { seq, .. }) | Error::Writer(WriterError::Superseded { seq, .. }) => {
            value.setattr("seq", seq)?;
        }
        Error::Writer(WriterError::Unacknowledged { seq, behind, readers, .. }) => {
            value.setattr("seq", seq)?;
            value.setattr("behind", behind)?;
            value.setattr("readers", readers)?;
        }
        Error::Request(RequestError::Refused(refusal)) => {
            let kind = serde_json::to_value(refusal.kind).ok();
            value.setattr("kind", kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("unknown"))?;
            let channels: Vec<String> = refusal.channels.iter().map(ToString::to_string).collect();
            value.setattr("channels", PyTuple::new(py, channels)?)?;
            value.setattr("retry_after", refusal.retry_after_ms.map(|ms| ms as f64 / 1000.0))?;
        }
        _ => {}
    }
    Ok(PyErr::from_value(value))
}

/// The name of the class in `shmd/_errors.py`.
fn name(error: &Error) -> &'static str {
    match error {
        Error::Reader(error) => match error {
            ReaderError::TimedOut { .. } => "TimedOutError",
            ReaderError::Closed { .. } => "ClosedError",
            ReaderError::Disconnected { .. } => "DisconnectedError",
            ReaderError::Evicted { .. } => "EvictedError",
            ReaderError::Lapped { .. } => "OverwrittenError",
            ReaderError::Withdrawn { .. } => "WithdrawnError",
            ReaderError::OtherLayout { .. } => "LayoutError",
            ReaderError::Corrupt { .. } => "CorruptError",
            ReaderError::Protocol(_) => "ProtocolError",
            ReaderError::System(_) => "SystemCallError",
            _ => "Error",
        },
        Error::Writer(error) => match error {
            WriterError::TooLarge { .. } => "TooLargeError",
            WriterError::TimedOut { .. } => "TimedOutError",
            WriterError::WouldBlock { .. } => "WouldBlockError",
            WriterError::NoSpace { .. } => "NoSpaceError",
            WriterError::Unacknowledged { .. } => "UnacknowledgedError",
            WriterError::Revoked { .. } => "RevokedError",
            WriterError::Superseded { .. } => "SupersededError",
            WriterError::OtherLayout { .. } => "LayoutError",
            WriterError::Corrupt { .. } => "CorruptError",
            WriterError::Protocol(_) => "ProtocolError",
            WriterError::System(_) => "SystemCallError",
            _ => "Error",
        },
        Error::Request(error) => match error {
            RequestError::NoDaemon { .. } => "NoDaemonError",
            RequestError::Refused(_) => "RefusedError",
            RequestError::TimedOut { .. } => "TimedOutError",
            RequestError::Protocol(_) => "ProtocolError",
            RequestError::System(_) => "SystemCallError",
            _ => "Error",
        },
        Error::IsHandoff { .. } => "HandoffChannelError",
        Error::Protocol(_) => "ProtocolError",
        Error::System(_) => "SystemCallError",
        Error::BadName(_) => "BadNameError",
        _ => "Error",
    }
}

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("shmd._errors")?.getattr(name)?.cast_into::<PyType>()?)
}

/// Whether this says that the channel is closed and has been read to its end.
pub(crate) fn is_closed_channel(py: Python<'_>, error: &PyErr) -> bool {
    class(py, "ClosedError").is_ok_and(|class| error.is_instance(py, &class))
}

fn of_class(name: &str, text: String) -> PyErr {
    Python::attach(|py| match class(py, name).and_then(|class| class.call1((text,))) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    })
}

/// An object is used in a child of the process that made it.
#[cold]
pub(crate) fn forked(what: &str) -> PyErr {
    of_class(
        "ForkedError",
        format!(
            "the {what} belongs to the process that os.fork() was called in; open another one in this process (multiprocessing: \
             use the start method \"spawn\" or \"forkserver\")"
        ),
    )
}

/// What was read of a message cannot be believed.
#[cold]
pub(crate) fn overwritten(seq: u64) -> PyErr {
    of_class(
        "OverwrittenError",
        format!("message {seq} was overwritten while it was read; release its views, and go on"),
    )
}

/// The writer is used while a slot of it is filled.
#[cold]
pub(crate) fn slot_is_open(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("the {what} has a slot that is being filled; leave its with statement first"))
}

#[cold]
pub(crate) fn closed(what: &str) -> PyErr {
    PyValueError::new_err(format!("the {what} is closed"))
}

#[cold]
pub(crate) fn busy(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("the {what} is in use by another thread; open one for each thread"))
}

/// Bytes that a view shows would change.
#[cold]
pub(crate) fn viewed(what: &str, views: usize) -> PyErr {
    let (views, them) = if views == 1 { ("a view", "it") } else { ("views", "them") };
    PyBufferError::new_err(format!(
        "{views} of the {what} would outlive the bytes that are shown; release {them} first (del, or memoryview.release()), or copy the \
         bytes"
    ))
}

/// A message is used after its reader has gone on.
#[cold]
pub(crate) fn finished(seq: u64) -> PyErr {
    PyValueError::new_err(format!("message {seq} is finished: its reader has gone on; copy the bytes before that"))
}
