//! Numbers of results, and the last error of each thread.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};

use crate::arguments;
use crate::failure::Failure;
use crate::figures::{self, ErrorFacts};

/// What a call comes to: a number that is not negative, or why it failed.
pub(crate) type Outcome = Result<c_int, Failure>;

macro_rules! results {
    ($($name:ident = $number:literal,)*) => {
        $(pub(crate) const $name: c_int = $number;)*

        /// The name in the header, without `SHMD_`.
        const NAMES: &[(c_int, &CStr)] = &[$((
            $number,
            match CStr::from_bytes_with_nul(concat!("SHMD_", stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name has no zero inside"),
            },
        ),)*];
    };
}

results! {
    OK = 0,
    NONE = 1,
    DROPPED = 2,
    ERR_INVALID = -1,
    ERR_STATE = -2,
    ERR_FORKED = -3,
    ERR_UNSUPPORTED = -4,
    ERR_TIMED_OUT = -5,
    ERR_WOULD_BLOCK = -6,
    ERR_INTERRUPTED = -7,
    ERR_CLOSED = -8,
    ERR_DISCONNECTED = -9,
    ERR_EVICTED = -10,
    ERR_OVERWRITTEN = -11,
    ERR_WITHDRAWN = -12,
    ERR_OTHER_LAYOUT = -13,
    ERR_CORRUPT = -14,
    ERR_PROTOCOL = -15,
    ERR_SYSTEM = -16,
    ERR_TOO_LARGE = -17,
    ERR_NO_SPACE = -18,
    ERR_UNACKNOWLEDGED = -19,
    ERR_REVOKED = -20,
    ERR_SUPERSEDED = -21,
    ERR_LOCKED = -22,
    ERR_NO_DAEMON = -23,
    ERR_BAD_NAME = -24,
    ERR_OTHER = -25,
    ERR_BAD_REQUEST = -40,
    ERR_BAD_VERSION = -41,
    ERR_NO_SUCH_CHANNEL = -42,
    ERR_NOT_PERMITTED = -43,
    ERR_WRITER_TAKEN = -44,
    ERR_TOO_MANY = -45,
    ERR_OUT_OF_RANGE = -46,
    ERR_NO_MEMORY = -47,
    ERR_NO_SUCH_READER = -48,
    ERR_BAD_CONFIG = -49,
    ERR_BUSY = -50,
    ERR_TRY_LATER = -51,
    ERR_INTERNAL = -52,
    ERR_REFUSED = -53,
    ERR_OTHER_CONTENT = -54,
}

#[derive(Default)]
struct Last {
    message: CString,
    facts: ErrorFacts,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// The number for the caller; an error is kept for the thread.
#[inline]
pub(crate) fn finish(outcome: Outcome) -> c_int {
    outcome.unwrap_or_else(|failure| failed(&failure))
}

/// Keeps the error for the thread, and returns its number.
#[cold]
pub(crate) fn failed(failure: &Failure) -> c_int {
    // No text of ours has a zero inside; a path or a name in it may.
    let message = CString::new(failure.message.replace('\0', "\u{fffd}")).unwrap_or_default();
    // Without the thread's storage, which is gone when the thread ends, only the number is left.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Last { message, facts: failure.facts });
    failure.facts.code
}

/// The sentence for the last error of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn shmd_error_message() -> *const c_char {
    // The text stays until the next error replaces it.
    LAST.try_with(|last| last.borrow().message.as_ptr()).unwrap_or(c"".as_ptr())
}

/// The facts about the last error of this thread.
///
/// # Safety
/// `error` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_error_get(error: *mut ErrorFacts, size: usize) -> c_int {
    let facts = LAST.try_with(|last| last.borrow().facts).unwrap_or_default();
    // SAFETY: promised by the caller.
    finish(unsafe { figures::give(error, size, facts, "error") })
}

/// The name of a result.
#[unsafe(no_mangle)]
pub extern "C" fn shmd_result_name(result: c_int) -> *const c_char {
    let name = NAMES.iter().find(|(number, _)| *number == result);
    name.map_or(c"unknown result", |(_, name)| name).as_ptr()
}

/// The version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn shmd_version() -> *const c_char {
    arguments::VERSION.as_ptr()
}
