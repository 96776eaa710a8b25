//! Receiving many small messages in one call.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use shm_proto::ReaderError;

use crate::inner::{Inner, Shared};
use crate::views::{self, Output};

/// Locks the reader and waits until there is a message. `None` after the timeout.
fn await_first<'s>(
    py: Python<'_>,
    shared: &'s Shared,
    timeout: Option<Duration>,
) -> PyResult<Option<MutexGuard<'s, Inner>>> {
    let mut inner = shared.guard.lock()?;
    let found = if timeout.is_some_and(|timeout| timeout.is_zero()) {
        // As for `try_recv`, which arms the descriptor.
        shared.next(&mut inner).map_err(|stop| shared.raise(py, stop))?
    } else {
        shared.receive(py, &mut inner, timeout)?
    };
    Ok(found.map(|_| inner))
}

pub(crate) fn recv_many<'py>(
    py: Python<'py>,
    shared: &Shared,
    most: usize,
    timeout: Option<Duration>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let since = Instant::now();
    while most > 0 && list.is_empty() {
        // Not the whole time again after messages that were overwritten.
        let left = timeout.map(|timeout| timeout.saturating_sub(since.elapsed()));
        let Some(mut inner) = await_first(py, shared, left)? else { break };
        while list.len() < most
            && let Some(bytes) = next_copy(py, shared, &mut inner)?
        {
            list.append(bytes)?;
        }
    }
    Ok(list)
}

/// A copy of the next message, valid. `None` if there is none yet, or if the next call reports something.
fn next_copy<'py>(py: Python<'py>, shared: &Shared, inner: &mut Inner) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Some((reader, mut held)) = shared.parts(inner) else { return Ok(None) };
    let failed = loop {
        let message = match held.take() {
            Some(ready) => reader.message(ready),
            None => match reader.try_recv() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(error) => break error,
            },
        };
        let bytes = match views::copied(py, &message) {
            Ok(bytes) => bytes,
            Err(error) => {
                // There is no memory. The reader stays at the message.
                let _ = message.into_ready();
                return Err(error);
            }
        };
        match message.finish() {
            Ok(()) => return Ok(Some(bytes)),
            Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => {}
            Err(error) => break error,
        }
    };
    inner.due = Some(failed);
    Ok(None)
}

pub(crate) fn read_array<'py>(
    shared: &Shared,
    dtype: &Bound<'py, PyAny>,
    most: usize,
    timeout: Option<Duration>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = dtype.py();
    let numpy = py.import("numpy")?;
    let dtype = numpy.call_method1("dtype", (dtype,))?;
    let item: usize = dtype.getattr("itemsize")?.extract()?;
    if item == 0 || dtype.getattr("hasobject")?.extract()? {
        return Err(PyValueError::new_err(format!("messages cannot be items of dtype {dtype}")));
    }
    let bytes = most.checked_mul(item).ok_or_else(|| PyValueError::new_err(format!("{most} items of {item} bytes")))?;
    let array = numpy.call_method1("empty", (bytes, "u1"))?;
    let mut filled = 0;
    let mut output = Output::of(&array)?;
    let since = Instant::now();
    while most > 0 && filled == 0 {
        let left = timeout.map(|timeout| timeout.saturating_sub(since.elapsed()));
        let Some(mut inner) = await_first(py, shared, left)? else { break };
        let (out, reader) = (output.as_mut_slice(), &mut *inner);
        match py.detach(move || fill(shared, reader, out, item)) {
            Ok(count) => filled = count,
            Err(Mismatch { seq, len }) => {
                return Err(PyValueError::new_err(format!(
                    "message {seq} has {len} bytes, and an item of dtype {dtype} has {item}; the message is the next one to receive"
                )));
            }
        }
    }
    drop(output);
    let slice = py.get_type::<pyo3::types::PySlice>().call1((filled * item,))?;
    let items = array.get_item(slice)?.call_method1("view", (dtype,))?;
    // A few items must not hold the memory of all that were asked for.
    if filled < most / 2 { items.call_method("copy", (), None::<&Bound<'_, PyDict>>) } else { Ok(items) }
}

/// A message that is not an item.
struct Mismatch {
    seq: u64,
    len: usize,
}

/// Copies messages of `item` bytes out, until there are no more, `out` is full, or another message comes.
fn fill(shared: &Shared, inner: &mut Inner, out: &mut [u8], item: usize) -> Result<usize, Mismatch> {
    let Some((reader, mut held)) = shared.parts(inner) else { return Ok(0) };
    let (mut filled, most) = (0, out.len() / item);
    let failed = loop {
        if filled == most {
            return Ok(filled);
        }
        // The second look is for all but the most common case, and is not made inline.
        let message = match held.take().or_else(|| reader.find_at_hand()) {
            Some(ready) => reader.message(ready),
            None => match reader.try_recv() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(filled),
                Err(error) => break error,
            },
        };
        if message.len() != item {
            let mismatch = Mismatch { seq: message.seq(), len: message.len() };
            // The reader stays at the message.
            let _ = message.into_ready();
            return if filled == 0 { Err(mismatch) } else { Ok(filled) };
        }
        message.copy_to(&mut out[filled * item..][..item]);
        match message.finish() {
            Ok(()) => filled += 1,
            Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => {}
            Err(error) => break error,
        }
    };
    inner.due = Some(failed);
    Ok(filled)
}
