//! The buffer protocol. This is the only part of the package that needs unsafe code.
//!
//! | type | whose bytes | who keeps them in place |
//! |---|---|---|
//! | [`Message`] | a message's, in the ring | the reader, which neither moves nor closes while there is a view: see [`Shared`] |
//! | [`Space`] | those of a slot, in the ring | the writer, likewise |
//! | [`Input`], [`Output`] | an object's of the program | the object, while this module has its buffer |
//!
//! Other processes may write a message's bytes while Python reads them: a writer that does not follow the protocol, or any writer
//! of an `overwrite` channel. They are plain bytes to Python, and nothing here is concluded from them.
//!
//! [`Shared`]: crate::inner::Shared
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::time::SystemTime;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use shm_proto::internal::os::clock;

use crate::inner::Facts;
use crate::reader::Reader;
use crate::writer::Writer;

/// A message, where it lies in the shared memory.
#[pyclass(frozen, module = "shmd._shmd")]
#[derive(Debug)]
pub(crate) struct Message {
    reader: Py<Reader>,
    facts: Facts,
}

impl Message {
    #[inline]
    pub(crate) fn new(reader: &Bound<'_, Reader>, facts: Facts) -> Message {
        Message { reader: reader.clone().unbind(), facts }
    }
}

#[pymethods]
impl Message {
    /// The message's number: numbers start at 0 when the channel is made, and have no gaps.
    #[getter]
    fn seq(&self) -> u64 {
        self.facts.seq
    }

    /// How many messages were lost to overwriting between the previous message and this one.
    #[getter]
    fn lost(&self) -> u64 {
        self.facts.lost
    }

    /// When the message was published, in seconds since 1970, as time.time() has them, by what the clock says now; None if the
    /// channel has no publish times.
    #[getter]
    fn time(&self) -> Option<f64> {
        let date = clock::date(self.facts.published_ns?);
        Some(date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64())
    }

    /// When the message was published, as time.monotonic_ns() counts; None if the channel has no publish times.
    #[getter]
    fn published_ns(&self) -> Option<u64> {
        self.facts.published_ns
    }

    /// How many numbers were skipped just before this message because a broken segment was replaced.
    #[getter]
    fn skipped(&self) -> u64 {
        self.facts.skipped
    }

    fn __len__(&self) -> usize {
        self.facts.len
    }

    /// A copy of the bytes, which were valid when they were copied.
    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.reader.get().shared.copy(py, &self.facts)
    }

    /// Raises OverwrittenError if what was read of the message up to now is not valid.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.reader.get().shared.check(py, &self.facts)
    }

    /// Finishes with the message, so that the writer may use its space again. Raises OverwrittenError if what was read through a view is
    /// not valid.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.reader.get().shared.finish_message(py, &self.facts)
    }

    /// Whether the message is finished, so that its bytes cannot be read any more.
    #[getter]
    fn finished(&self) -> bool {
        !self.reader.get().shared.is_current(&self.facts)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyType>>,
        _value: Option<Bound<'_, PyAny>>,
        _traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        match self.finish(py) {
            // The exception on its way says more, and its frames may keep views alive.
            Err(_) if kind.is_some() => Ok(()),
            finished => finished,
        }
    }

    fn __repr__(&self) -> String {
        let Facts { seq, len, lost, .. } = self.facts;
        format!("<shmd.Message {seq}: {len} bytes, {lost} lost before it>")
    }

    /// # Safety
    /// Python calls this, with a buffer to fill in.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let Message { reader, facts } = slf.get();
        let shared = &reader.get().shared;
        shared.begin_view(facts)?;
        // SAFETY: `view` and `flags` are what Python called with. The reader stands at this message, as `begin_view` has checked
        // under the lock, so the library has found that these bytes lie in its mapping. While the number of views is not 0, the
        // reader neither moves nor drops its mapping; it is lowered only when Python releases the view, and the view keeps this
        // object and thereby the reader alive. The view is read-only, and the mapping, too.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), facts.address as *mut c_void, facts.len as isize, 1, flags)
        };
        if filled == 0 {
            return Ok(());
        }
        shared.guard.end_view();
        Err(PyErr::fetch(slf.py()))
    }

    /// # Safety
    /// Python calls this once for each buffer that `__getbuffer__` has filled in.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.reader.get().shared.guard.end_view();
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.reader.get().shared.drop_message(&self.facts);
    }
}

/// A copy of a message's bytes.
pub(crate) fn copied<'py>(py: Python<'py>, message: &shm_proto::Message<'_>) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: the message has `len` bytes from there on. A new object is returned, or null with an exception set.
    unsafe {
        let bytes = ffi::PyBytes_FromStringAndSize(message.as_ptr().cast(), message.len() as isize);
        Ok(Bound::from_owned_ptr_or_err(py, bytes)?.cast_into_unchecked())
    }
}

/// The bytes of a slot.
#[pyclass(frozen, module = "shmd._shmd")]
#[derive(Debug)]
pub(crate) struct Space {
    writer: Py<Writer>,
    address: usize,
    len: usize,
}

impl Space {
    /// The bytes of this slot of the writer, which stays held while there are views.
    pub(crate) fn new(writer: Py<Writer>, slot: &mut shm_proto::Slot<'_>) -> Space {
        Space { writer, address: slot.as_mut_ptr() as usize, len: slot.len() }
    }
}

#[pymethods]
impl Space {
    /// # Safety
    /// Python calls this, with a buffer to fill in.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let Space { writer, address, len } = slf.get();
        let shared = &writer.get().shared;
        shared.begin_view(*address)?;
        // SAFETY: `view` and `flags` are what Python called with. The slot at this address is held, as `begin_view` has checked
        // under the lock, so these bytes lie in the writer's mapping, and nobody else writes them. While the number of views is
        // not 0, the writer neither commits nor drops its mapping; it is lowered only when Python releases the view, and the
        // view keeps this object and thereby the writer alive.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), *address as *mut c_void, *len as isize, 0, flags) };
        if filled == 0 {
            return Ok(());
        }
        shared.guard.end_view();
        Err(PyErr::fetch(slf.py()))
    }

    /// # Safety
    /// Python calls this once for each buffer that `__getbuffer__` has filled in.
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.writer.get().shared.guard.end_view();
    }
}

/// The buffer of an object, as contiguous bytes. In a box, because a buffer may point into itself.
struct Exported(Box<ffi::Py_buffer>);

impl Exported {
    fn of(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Exported> {
        let mut view = Box::new(MaybeUninit::<ffi::Py_buffer>::uninit());
        // SAFETY: the buffer is filled in if the result is 0, and only then used.
        let filled = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) };
        if filled != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        // SAFETY: it is filled in.
        let exported = Exported(unsafe { Box::from_raw(Box::into_raw(view).cast()) });
        if exported.0.len > 0 && exported.0.buf.is_null() {
            return Err(PyBufferError::new_err("the object's buffer has no address"));
        }
        Ok(exported)
    }

    /// Address and length; for no bytes, an address that may be used for none.
    fn parts(&self) -> (*mut u8, usize) {
        match usize::try_from(self.0.len) {
            Ok(len) if len > 0 => (self.0.buf.cast(), len),
            _ => (std::ptr::NonNull::dangling().as_ptr(), 0),
        }
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // SAFETY: the buffer was filled in by `PyObject_GetBuffer` and is released once. Exported values live on the stacks of calls
        // from Python, which are attached whenever they return.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) };
    }
}

/// The bytes of an object that are published.
pub(crate) enum Input<'a, 'py> {
    Bytes(&'a Bound<'py, PyBytes>),
    Buffer(Buffer),
}

pub(crate) struct Buffer(Exported);

impl<'a, 'py> Input<'a, 'py> {
    /// # Errors
    /// `TypeError` if the object has no buffer, `BufferError` if its bytes are not contiguous.
    #[inline]
    pub(crate) fn of(object: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyBytes>() {
            Ok(bytes) => Ok(Input::Bytes(bytes)),
            Err(_) => Ok(Input::Buffer(Buffer(Exported::of(object, ffi::PyBUF_SIMPLE)?))),
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Input::Bytes(bytes) => bytes.as_bytes(),
            Input::Buffer(Buffer(exported)) => {
                let (address, len) = exported.parts();
                // SAFETY: the object keeps these bytes in place while its buffer is not released. As with every function of Python
                // that takes a buffer, the program must not write them meanwhile; this one only copies them.
                unsafe { std::slice::from_raw_parts(address, len) }
            }
        }
    }
}

/// A new array of the program's that is to be filled.
pub(crate) struct Output(Exported);

impl Output {
    /// # Errors
    /// `BufferError` if the bytes are not contiguous or cannot be written.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Output> {
        Ok(Output(Exported::of(object, ffi::PyBUF_WRITABLE)?))
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let (address, len) = self.0.parts();
        // SAFETY: the object keeps these bytes in place while its buffer is not released, and they can be written. Nobody else has
        // the object yet, because the call that made it has not returned it.
        unsafe { std::slice::from_raw_parts_mut(address, len) }
    }
}
