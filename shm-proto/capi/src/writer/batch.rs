//! Messages that become visible together.
#![allow(unsafe_code)]

use std::ffi::c_int;

use super::{Inner, Open, ShmdWriter, published};
use crate::arguments::{bytes, no_bytes, null, put};
use crate::failure::Failure;
use crate::result::{DROPPED, ERR_UNACKNOWLEDGED, OK, failed, finish};

/// `shmd_bytes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ShmdBytes {
    data: *const u8,
    len: usize,
}

const _: () = assert!(size_of::<ShmdBytes>() == 16 && std::mem::offset_of!(ShmdBytes, len) == 8);

#[cold]
fn no_batch() -> Failure {
    Failure::state("the writer has no open batch; call shmd_writer_batch_begin() first")
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `messages` has `count` elements, each of which has
/// its bytes; `published` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_publish_many(
    writer: *const ShmdWriter,
    messages: *const ShmdBytes,
    count: usize,
    published: *mut usize,
) -> c_int {
    // SAFETY: promised by the caller.
    let writer = match unsafe { Inner::idle(writer) } {
        Ok((_, writer)) if !messages.is_null() || count == 0 => writer,
        Ok(_) => return failed(&null("messages")),
        Err(failure) => return failed(&failure),
    };
    let mut batch = writer.batch();
    let (mut done, mut failure) = (0, None);
    for n in 0..count {
        // SAFETY: promised by the caller.
        let ShmdBytes { data, len } = unsafe { messages.add(n).read() };
        // SAFETY: promised by the caller.
        let Some(message) = (unsafe { bytes(data, len) }) else {
            failure = Some(no_bytes(data, len));
            break;
        };
        match batch.push(message) {
            Ok(Some(_)) => done += 1,
            Ok(None) => {}
            Err(error) => {
                failure = Some(error.into());
                break;
            }
        }
    }
    if let Err(error) = batch.commit() {
        let error = Failure::from(error);
        // With any other error, nothing of it is known to be published.
        if error.facts.code != ERR_UNACKNOWLEDGED {
            done = 0;
        }
        failure.get_or_insert(error);
    }
    // SAFETY: promised by the caller.
    unsafe { put(published, done) };
    match failure {
        Some(failure) => failed(&failure),
        None if done < count => DROPPED,
        None => OK,
    }
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_batch_begin(writer: *const ShmdWriter) -> c_int {
    // SAFETY: promised by the caller.
    finish(unsafe { Inner::idle(writer) }.map(|(inner, writer)| {
        inner.open = Open::Batch(writer.batch());
        OK
    }))
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `data` has `len` bytes, `seq` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_batch_push(
    writer: *const ShmdWriter,
    data: *const u8,
    len: usize,
    seq: *mut u64,
) -> c_int {
    // SAFETY: promised by the caller.
    match unsafe { (Inner::usable(writer), bytes(data, len)) } {
        (Ok(Inner { open: Open::Batch(batch), .. }), Some(message)) => {
            // SAFETY: promised by the caller.
            unsafe { self::published(batch.push(message), seq) }
        }
        (Ok(_), Some(_)) => failed(&no_batch()),
        (Err(failure), _) => failed(&failure),
        (_, None) => failed(&no_bytes(data, len)),
    }
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_batch_commit(writer: *const ShmdWriter) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let inner = unsafe { Inner::usable(writer)? };
        match std::mem::replace(&mut inner.open, Open::Nothing) {
            Open::Batch(batch) => batch.commit().map(|()| OK).map_err(Failure::from),
            open => {
                inner.open = open;
                Err(no_batch())
            }
        }
    })())
}
