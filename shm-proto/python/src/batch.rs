//! The class `Batch`: messages that become visible together.

use std::iter::Peekable;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyType;
use shm_proto::WriterError;
use shm_proto::internal::os::clock;

use crate::errors;
use crate::publishing::{Inner, Shared, unless_published};
use crate::views::Input;
use crate::wait::{Deadline, SLICE};
use crate::writer::Writer;

/// Messages that are published together at the end of a with statement. Until then, they are copies in this process.
#[pyclass(frozen, module = "shmd._shmd")]
#[derive(Debug)]
pub(crate) struct Batch {
    writer: Py<Writer>,
    timeout: Option<Duration>,
    messages: Mutex<Messages>,
}

#[derive(Debug, Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
    done: Done,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Messages that the channel did not drop.
    pub(crate) published: u64,
    /// The number of the last one.
    last: Option<u64>,
}

impl Batch {
    pub(crate) fn new(writer: Py<Writer>, timeout: Option<Duration>) -> Batch {
        Batch { writer, timeout, messages: Mutex::default() }
    }

    fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes messages as one batch. They become visible earlier if the writer has to wait for space. `done` says what was published
/// also if this fails, and so does the exception.
pub(crate) fn publish<'m>(
    py: Python<'_>,
    shared: &Shared,
    inner: &mut Inner,
    messages: impl Iterator<Item = &'m [u8]> + Send,
    timeout: Option<Duration>,
    done: &mut Done,
) -> PyResult<()> {
    let writer = shared.writer(inner)?;
    let deadline = Deadline::after(timeout);
    let mut messages = messages.peekable();
    let mut batch = writer.batch();
    let pushed = loop {
        let slice = deadline.slice();
        let (lent, messages, counted) = (&mut batch, &mut messages, &mut *done);
        match py.detach(move || push_all(lent, messages, counted, slice)) {
            Ok(()) => break Ok(()),
            Err(WriterError::TimedOut { what, .. }) => {
                if let Err(error) = py.check_signals().and_then(|()| shared.check_closing()) {
                    break Err(error);
                }
                if deadline.is_over() {
                    break Err(errors::raise(py, WriterError::TimedOut { what, waited: deadline.waited() }));
                }
            }
            Err(error) => break Err(errors::raise(py, error)),
        }
    };
    // What was pushed before a failure is published, as with every batch that ends.
    let (slice, last) = (if pushed.is_ok() { SLICE } else { Duration::ZERO }, done.last);
    let committed = unless_published(py.detach(move || batch.commit_within(slice)).map(|()| last));
    if committed.as_ref().is_err_and(|error| !matches!(error, WriterError::Unacknowledged { .. })) {
        // Nothing of it is known to be published.
        *done = Done::default();
    }
    let result = match (pushed, committed) {
        (Err(error), _) => Err(error),
        (Ok(()), Err(error)) => Err(errors::raise(py, error)),
        (Ok(()), Ok(published)) => shared.acknowledged(py, writer, deadline, published).map(drop),
    };
    if let Err(error) = &result {
        let _ = error.value(py).setattr("published", done.published);
    }
    result
}

/// Pushes messages until none is left, or until one would have to wait when the slice is over.
fn push_all<'m>(
    batch: &mut shm_proto::Batch<'_>,
    messages: &mut Peekable<impl Iterator<Item = &'m [u8]>>,
    done: &mut Done,
    slice: Duration,
) -> Result<(), WriterError> {
    let end_ns = clock::after(slice);
    while let Some(message) = messages.peek() {
        if let Some(seq) = batch.push_until(message, end_ns)? {
            done.published += 1;
            done.last = Some(seq);
        }
        messages.next();
    }
    Ok(())
}

#[pymethods]
impl Batch {
    /// Adds a message.
    fn push(&self, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let input = Input::of(message)?;
        let mut messages = self.messages();
        messages.bytes.extend_from_slice(input.as_slice());
        let end = messages.bytes.len();
        messages.ends.push(end);
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// Publishes the messages, unless the statement ends with an exception.
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyType>>,
        _value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let Messages { bytes, ends, .. } = std::mem::take(&mut *self.messages());
        if kind.is_some() || ends.is_empty() {
            return Ok(());
        }
        let shared = &self.writer.get().shared;
        let mut inner = shared.guard.lock()?;
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let parts = begins.zip(&ends).map(|(begin, end)| &bytes[begin..*end]);
        let mut done = Done::default();
        let result = publish(py, shared, &mut inner, parts, self.timeout, &mut done);
        self.messages().done = done;
        result
    }

    /// How many messages were published, also if the statement has failed. The channel has dropped the others.
    #[getter]
    fn published(&self) -> u64 {
        self.messages().done.published
    }

    /// The number of the last message; None if none was published.
    #[getter]
    fn seq(&self) -> Option<u64> {
        self.messages().done.last
    }

    fn __len__(&self) -> usize {
        self.messages().ends.len()
    }
}
