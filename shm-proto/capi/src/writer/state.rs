//! What a writer does while it rests, and what it knows.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::os::fd::AsRawFd;

use super::{Inner, ShmdWriter};
use crate::arguments::out;
use crate::figures::{self, ContentFacts, Facts, WriterState};
use crate::result::{OK, finish};

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_maintain(writer: *const ShmdWriter) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        unsafe { Inner::idle(writer)? }.1.maintain()?;
        Ok(OK)
    })())
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `fd` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_fd(writer: *const ShmdWriter, fd: *mut c_int) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (writer, place) = unsafe { (Inner::idle(writer)?.1, out(fd, "fd")?) };
        *place = writer.link_fd().map_or(-1, |fd| fd.as_raw_fd());
        Ok(OK)
    })())
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `state` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_state_get(
    writer: *const ShmdWriter,
    state: *mut WriterState,
    size: usize,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (_, writer) = unsafe { Inner::idle(writer)? };
        let known = WriterState {
            messages: writer.messages(),
            bytes: writer.bytes(),
            dropped: writer.dropped(),
            readers: u32::try_from(writer.readers()).unwrap_or(u32::MAX),
            drained: u32::from(writer.is_drained()),
            shrinking: u32::from(writer.is_shrinking()),
            disconnected: u32::from(writer.is_disconnected()),
        };
        // SAFETY: promised by the caller.
        unsafe { figures::give(state, size, known, "state") }
    })())
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `facts` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_facts(writer: *const ShmdWriter, facts: *mut Facts, size: usize) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (_, writer) = unsafe { Inner::idle(writer)? };
        // SAFETY: as above.
        unsafe { figures::give(facts, size, Facts::from(writer.geometry()), "facts") }
    })())
}

/// # Safety
/// `writer` is NULL or a handle that was not freed, and that no other thread uses; `content` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_writer_content(
    writer: *const ShmdWriter,
    content: *mut ContentFacts,
    size: usize,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (_, writer) = unsafe { Inner::idle(writer)? };
        // SAFETY: as above.
        unsafe { figures::give(content, size, ContentFacts::from(writer.content()), "content") }
    })())
}
