//! Where a daemon is.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use shm_proto::{Endpoint, Expected};

use crate::arguments::{self, null, out};
use crate::failure::Failure;
use crate::result::{OK, finish};

/// `shmd_endpoint`.
#[derive(Debug)]
pub struct ShmdEndpoint {
    pub(crate) inner: Endpoint,
    socket: CString,
}

/// # Safety
/// `runtime_dir` is NULL or a text, `endpoint` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_endpoint_find(runtime_dir: *const c_char, endpoint: *mut *mut ShmdEndpoint) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, dir) = unsafe { (out(endpoint, "endpoint")?, arguments::text(runtime_dir, "runtime directory")?) };
        let inner = Endpoint::find(dir.map(Path::new));
        // A path that has a zero inside cannot come from a C program or from its environment.
        let socket = CString::new(inner.socket.as_os_str().as_bytes()).unwrap_or_default();
        *place = Box::into_raw(Box::new(ShmdEndpoint { inner, socket }));
        Ok(OK)
    })())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_endpoint_set_patience(endpoint: *mut ShmdEndpoint, patience_ns: i64) -> c_int {
    // SAFETY: promised by the caller.
    let endpoint = unsafe { endpoint.as_mut() };
    finish(endpoint.ok_or_else(|| null("endpoint")).map(|endpoint| {
        let patience = arguments::timeout(patience_ns).unwrap_or(std::time::Duration::MAX);
        endpoint.inner = endpoint.inner.clone().with_patience(patience);
        OK
    }))
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed; the others are NULL or texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_endpoint_set_expected(
    endpoint: *mut ShmdEndpoint,
    encoding: *const c_char,
    schema: *const c_char,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, encoding, schema) = unsafe {
            let (encoding, schema) =
                (arguments::text(encoding, "encoding")?, arguments::text(schema, "schema's name")?);
            (endpoint.as_mut().ok_or_else(|| null("endpoint"))?, encoding, schema)
        };
        let expected = match encoding {
            Some(encoding) => Some(Expected::new(encoding, schema).map_err(|e| Failure::invalid(e.to_string()))?),
            None if schema.is_some() => return Err(null("encoding")),
            None => None,
        };
        place.inner = place.inner.clone().expecting(expected);
        Ok(OK)
    })())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_endpoint_socket(endpoint: *const ShmdEndpoint) -> *const c_char {
    // SAFETY: promised by the caller.
    unsafe { endpoint.as_ref() }.map_or(ptr::null(), |endpoint| endpoint.socket.as_ptr())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_endpoint_free(endpoint: *mut ShmdEndpoint) {
    if !endpoint.is_null() {
        // SAFETY: promised by the caller; `shmd_endpoint_find` made it from a box.
        drop(unsafe { Box::from_raw(endpoint) });
    }
}
