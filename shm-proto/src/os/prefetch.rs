//! Asking for cache lines before they are read.
#![allow(unsafe_code)]

/// The distance between the line that is read and the line that is asked for, in bytes. A processor asks ahead by itself, but
/// only inside a page, and has to start again in each page.
pub const AHEAD: usize = 1024;

/// Asks for the cache line at this address. This is a hint: any address is allowed, it orders nothing, and nothing relies on it.
/// It does nothing on processors other than x86-64, because it has not been measured there.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction. The program cannot see what it reads, and it does nothing for an
        // address that is not mapped.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
