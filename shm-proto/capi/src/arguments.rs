//! Pointers, texts and times that come from the caller, and what is given to it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::time::Duration;

use nix::libc;
use shm_proto::Endpoint;

use crate::endpoint::ShmdEndpoint;
use crate::failure::Failure;
use crate::result::ERR_SYSTEM;

pub(crate) const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no zero inside"),
};

/// A negative timeout means no time limit.
#[inline(always)]
pub(crate) fn timeout(ns: i64) -> Option<Duration> {
    u64::try_from(ns).ok().map(Duration::from_nanos)
}

/// The text, or `None` for NULL.
///
/// # Safety
/// `text` is NULL, or ends with a zero and lives as long as the result.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, Failure> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Failure::invalid(format!("the {what} {text:?} is not UTF-8")))
}

/// The endpoint, or where a client looks.
///
/// # Safety
/// `endpoint` is NULL or a handle that was not freed.
pub(crate) unsafe fn endpoint(endpoint: *const ShmdEndpoint) -> Endpoint {
    // SAFETY: promised by the caller.
    unsafe { endpoint.as_ref() }.map_or_else(|| Endpoint::find(None), |endpoint| endpoint.inner.clone())
}

/// Where a result goes.
///
/// # Safety
/// `place` is NULL or may be written.
pub(crate) unsafe fn out<'a, T>(place: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: promised by the caller.
    unsafe { place.as_mut() }.ok_or_else(|| null(what))
}

/// Stores a result that the caller may not want.
///
/// # Safety
/// `place` is NULL or may be written.
#[inline(always)]
pub(crate) unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: promised by the caller.
        unsafe { place.write(value) };
    }
}

#[cold]
pub(crate) fn null(what: &str) -> Failure {
    Failure::invalid(format!("{what} is NULL"))
}

/// The bytes; NULL is no bytes at all.
///
/// # Safety
/// `data` has `len` bytes that do not change while the result lives, or `len` is 0.
#[inline(always)]
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: usize) -> Option<&'a [u8]> {
    if len == 0 {
        return Some(&[]);
    }
    if data.is_null() || len > isize::MAX as usize {
        return None;
    }
    // SAFETY: promised by the caller.
    Some(unsafe { std::slice::from_raw_parts(data, len) })
}

/// Why [`bytes`] are none.
#[cold]
pub(crate) fn no_bytes(data: *const u8, len: usize) -> Failure {
    if data.is_null() {
        return Failure::invalid(format!("data is NULL, and len is {len}"));
    }
    Failure::invalid(format!("no message has {len} bytes"))
}

/// Memory from `malloc`, which the caller frees.
pub(crate) fn allocated(bytes: usize) -> Result<*mut u8, Failure> {
    // SAFETY: plain numbers.
    let memory = unsafe { libc::malloc(bytes.max(1)) }.cast::<u8>();
    if memory.is_null() {
        let mut failure = Failure::new(ERR_SYSTEM, format!("there is no memory for {bytes} bytes"));
        failure.facts.system_errno = libc::ENOMEM;
        return Err(failure);
    }
    Ok(memory)
}
