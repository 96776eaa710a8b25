//! A writer's handle, and the calls that publish.
#![allow(unsafe_code)]

mod batch;
mod state;

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shm_proto::{Batch, Slot, Writer, WriterError};

use crate::arguments::{self, bytes, no_bytes, null, out, put};
use crate::endpoint::ShmdEndpoint;
use crate::failure::Failure;
use crate::guard::Guard;
use crate::result::{DROPPED, OK, failed, finish};
use crate::source::Lender;

/// `shmd_slot`.
#[repr(C)]
#[derive(Debug)]
pub struct ShmdSlot {
    data: *mut u8,
    len: usize,
    generation: u64,
    reserved: [u64; 1],
}

const _: () = assert!(size_of::<ShmdSlot>() == 32 && std::mem::offset_of!(ShmdSlot, generation) == 16);

impl ShmdSlot {
    fn end(&mut self) {
        (self.data, self.len, self.generation) = (ptr::null_mut(), 0, 0);
    }
}

/// `shmd_writer`. A signal handler and other threads may use the flag while the rest is in use.
#[derive(Debug)]
pub struct ShmdWriter {
    interrupt: Arc<AtomicBool>,
    inner: UnsafeCell<Inner>,
}

/// The fields are dropped from the first to the last: what is open before the writer.
#[derive(Debug)]
struct Inner {
    guard: Guard,
    open: Open,
    /// Of the slot that is open, or was open last.
    generation: u64,
    writer: Lender<Writer>,
}

/// What is open. The borrow is of the writer in the same handle: see `source`.
#[derive(Debug)]
enum Open {
    Nothing,
    Slot(Slot<'static>),
    Batch(Batch<'static>),
}

impl Inner {
    /// The handle, if it may be used.
    ///
    /// # Safety
    /// `writer` is NULL or a handle that was not freed, and that no other thread uses.
    #[inline(always)]
    unsafe fn usable<'a>(writer: *const ShmdWriter) -> Result<&'a mut Inner, Failure> {
        // SAFETY: promised by the caller.
        let Some(writer) = (unsafe { writer.as_ref() }) else { return Err(null("writer")) };
        // SAFETY: no other thread uses the handle, and no call keeps what it gets here.
        let inner = unsafe { &mut *writer.inner.get() };
        if inner.guard.is_ours() { Ok(inner) } else { Err(inner.guard.check().err().unwrap_or_else(|| null("writer"))) }
    }

    /// The writer, if the handle may be used and nothing is open. It must not be kept by more than `open`.
    ///
    /// # Safety
    /// As [`usable`](Self::usable).
    #[inline(always)]
    unsafe fn idle<'a>(writer: *const ShmdWriter) -> Result<(&'a mut Inner, &'static mut Writer), Failure> {
        // SAFETY: promised by the caller.
        let inner = unsafe { Self::usable(writer)? };
        match inner.open {
            Open::Nothing => {
                // SAFETY: nothing is open, and `open` is dropped before `writer`.
                let writer = unsafe { inner.writer.borrow() };
                Ok((inner, writer))
            }
            _ => Err(inner.is_open()),
        }
    }

    #[cold]
    fn is_open(&self) -> Failure {
        Failure::state(match self.open {
            Open::Batch(_) => "the writer has an open batch; call shmd_writer_batch_commit() first",
            _ => "the writer has an open slot; call shmd_writer_commit() or shmd_writer_abort() first",
        })
    }

    /// Takes the slot, if this is the one that is open.
    #[inline(always)]
    fn take(&mut self, slot: &ShmdSlot) -> Result<Slot<'static>, Failure> {
        if slot.generation == self.generation
            && matches!(self.open, Open::Slot(_))
            && let Open::Slot(open) = std::mem::replace(&mut self.open, Open::Nothing)
        {
            return Ok(open);
        }
        Err(Failure::state("this slot is not open; it was committed or aborted before, or comes from another writer"))
    }
}

/// The number of a result, after storing the message's number.
///
/// # Safety
/// `seq` is NULL or may be written.
#[inline(always)]
unsafe fn published(result: Result<Option<u64>, WriterError>, seq: *mut u64) -> c_int {
    match result {
        Ok(Some(number)) => {
            // SAFETY: promised by the caller.
            unsafe { put(seq, number) };
            OK
        }
        Ok(None) => DROPPED,
        Err(error) => {
            // The message is published, so that it has a number.
            if let WriterError::Unacknowledged { seq: number, .. } = error {
                // SAFETY: promised by the caller.
                unsafe { put(seq, number) };
            }
            failed(&error.into())
        }
    }
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed, `channel` is NULL or a text, `writer` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_attach(
    endpoint: *const ShmdEndpoint,
    channel: *const c_char,
    writer: *mut *mut ShmdWriter,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, channel) = unsafe { (out(writer, "writer")?, arguments::text(channel, "channel's name")?) };
        let guard = Guard::new()?;
        // SAFETY: promised by the caller.
        let endpoint = unsafe { arguments::endpoint(endpoint) };
        let mut attached = Writer::attach(&endpoint, channel)?;
        let interrupt = Arc::new(AtomicBool::new(false));
        attached.interrupt_on(Arc::clone(&interrupt));
        let inner = Inner { guard, open: Open::Nothing, generation: 0, writer: Lender::new(attached) };
        let writer = Box::new(ShmdWriter { interrupt, inner: UnsafeCell::new(inner) });
        let writer = Box::into_raw(writer);
        // So that a slot of another writer is not taken for one of this writer.
        // SAFETY: it was made just now.
        unsafe { (*(*writer).inner.get()).generation = (writer as u64) << 16 };
        *place = writer;
        Ok(OK)
    })())
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_free(writer: *mut ShmdWriter) {
    // SAFETY: promised by the caller. In a child, the role is still the parent's, and is left alone.
    if unsafe { Inner::usable(writer) }.is_ok() {
        // SAFETY: it was made from a box.
        drop(unsafe { Box::from_raw(writer) });
    }
}

/// # Safety
/// `writer` is NULL or a handle that was not freed; other threads and signal handlers may use it meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_interrupt(writer: *const ShmdWriter, on: c_int) {
    // SAFETY: promised by the caller. This refers to the flag, and to what is in the cell only as a cell.
    if let Some(writer) = unsafe { writer.as_ref() } {
        writer.interrupt.store(on != 0, Ordering::SeqCst);
    }
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `data` has `len` bytes, `seq` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_publish(
    writer: *const ShmdWriter,
    data: *const u8,
    len: usize,
    seq: *mut u64,
) -> c_int {
    // SAFETY: promised by the caller. No other thread uses the handle, and no call keeps what it gets here.
    if let Some(inner) = unsafe { writer.as_ref() }.map(|writer| unsafe { &mut *writer.inner.get() })
        && inner.guard.is_ours()
        && matches!(inner.open, Open::Nothing)
        // SAFETY: promised by the caller.
        && let Some(message) = unsafe { bytes(data, len) }
        // SAFETY: nothing is open, and nothing of this borrow is kept.
        && let Some(result) = unsafe { inner.writer.borrow() }.publish_at_hand(message)
    {
        return match result {
            Ok(number) => {
                // SAFETY: promised by the caller.
                unsafe { put(seq, number) };
                OK
            }
            Err(error) => failed_to_publish(error),
        };
    }
    // SAFETY: promised by the caller.
    unsafe { publish_slowly(writer, data, len, seq) }
}

#[cold]
#[inline(never)]
fn failed_to_publish(error: WriterError) -> c_int {
    failed(&error.into())
}

/// # Safety
/// As for [`shmd_writer_publish`].
#[cold]
#[inline(never)]
unsafe fn publish_slowly(writer: *const ShmdWriter, data: *const u8, len: usize, seq: *mut u64) -> c_int {
    // SAFETY: promised by the caller.
    match unsafe { (Inner::idle(writer), bytes(data, len)) } {
        // SAFETY: promised by the caller.
        (Ok((_, writer)), Some(message)) => unsafe { published(writer.publish(message), seq) },
        (Err(failure), _) => failed(&failure),
        (_, None) => failed(&no_bytes(data, len)),
    }
}

/// # Safety
/// As for [`shmd_writer_publish`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_publish_within(
    writer: *const ShmdWriter,
    data: *const u8,
    len: usize,
    timeout_ns: i64,
    seq: *mut u64,
) -> c_int {
    // SAFETY: promised by the caller.
    let (writer, message) = match unsafe { (Inner::idle(writer), bytes(data, len)) } {
        (Ok((_, writer)), Some(message)) => (writer, message),
        (Err(failure), _) => return failed(&failure),
        (_, None) => return failed(&no_bytes(data, len)),
    };
    let result = match arguments::timeout(timeout_ns) {
        None => writer.publish(message),
        Some(Duration::ZERO) => writer.try_publish(message),
        Some(timeout) => writer.publish_within(message, timeout),
    };
    // SAFETY: promised by the caller.
    unsafe { published(result, seq) }
}

/// # Safety
/// As for [`shmd_writer_publish`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_publish_acked(
    writer: *const ShmdWriter,
    data: *const u8,
    len: usize,
    timeout_ns: i64,
    seq: *mut u64,
) -> c_int {
    // SAFETY: promised by the caller.
    match unsafe { (Inner::idle(writer), bytes(data, len)) } {
        (Ok((_, writer)), Some(message)) => {
            let timeout = arguments::timeout(timeout_ns).unwrap_or(Duration::MAX);
            // SAFETY: promised by the caller.
            unsafe { published(writer.publish_acked(message, timeout), seq) }
        }
        (Err(failure), _) => failed(&failure),
        (_, None) => failed(&no_bytes(data, len)),
    }
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `slot` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_reserve(writer: *const ShmdWriter, len: usize, slot: *mut ShmdSlot) -> c_int {
    // SAFETY: promised by the caller.
    let (inner, writer, to) = match unsafe { (Inner::idle(writer), slot.as_mut()) } {
        (Ok((inner, writer)), Some(to)) => (inner, writer, to),
        (Err(failure), _) => return failed(&failure),
        (_, None) => return failed(&null("slot")),
    };
    match writer.reserve(len) {
        Ok(Some(mut slot)) => {
            inner.generation += 1;
            (to.data, to.len, to.generation) = (slot.as_mut_ptr(), len, inner.generation);
            inner.open = Open::Slot(slot);
            OK
        }
        Ok(None) => DROPPED,
        Err(error) => failed(&error.into()),
    }
}

/// # Safety
/// As for [`shmd_writer_reserve`]; `seq` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_commit(
    writer: *const ShmdWriter,
    slot: *mut ShmdSlot,
    len: usize,
    seq: *mut u64,
) -> c_int {
    // SAFETY: promised by the caller.
    let (inner, slot) = match unsafe { (Inner::usable(writer), slot.as_mut()) } {
        (Ok(inner), Some(slot)) => (inner, slot),
        (Err(failure), _) => return failed(&failure),
        (_, None) => return failed(&null("slot")),
    };
    let open = match inner.take(slot) {
        Ok(open) => open,
        Err(failure) => return failed(&failure),
    };
    if len > open.len() {
        let failure = Failure::invalid(format!("a commit of {len} bytes; {} were reserved", open.len()));
        inner.open = Open::Slot(open);
        return failed(&failure);
    }
    slot.end();
    // SAFETY: promised by the caller.
    unsafe { published(open.commit(len).map(Some), seq) }
}

/// # Safety
/// As for [`shmd_writer_reserve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_abort(writer: *const ShmdWriter, slot: *mut ShmdSlot) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (inner, slot) = unsafe { (Inner::usable(writer)?, out(slot, "slot")?) };
        inner.take(slot)?.abort();
        slot.end();
        Ok(OK)
    })())
}
