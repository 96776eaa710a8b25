//! Asking for cache lines before they are read.
#![allow(unsafe_code)]

/// How far ahead of what is read one after the other lines are asked for, in bytes. A processor does that by itself, but only
/// inside a page, and begins anew in each.
pub const AHEAD: usize = 1024;

/// Asks for the cache line at this address: a hint, which no address makes wrong. It orders nothing, and nothing relies on it.
/// Does nothing on other processors than x86-64, where it has not been measured.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 has the instruction. It reads nothing that the program could see, and does nothing for an
        // address that is not mapped.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
