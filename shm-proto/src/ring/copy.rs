//! Copying payloads into the segment and out of it.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::page::PAGE_SIZE;

/// Up to so many bytes a message is copied word by word, from the last to the first.
pub(super) const SMALL: usize = 256;
/// Up to so many bytes are copied at once to an [unlucky](is_unlucky) place. For more, `memcpy` of the C library may use `rep movsb`.
const PIECE: usize = 2048;
/// A processor's vector, in bytes.
const VECTOR: usize = 32;

/// Whether the destination is less than a vector further in its page than the source. The processor takes each load for one of
/// what was stored just before, because it compares the place in the page only. `rep movsb` then makes 3 GB/s on Zen 4
/// where it makes 45 otherwise; copies in pieces of 2 KiB, which do without it, make 15 to 39.
#[inline(always)]
fn is_unlucky(from: *const u8, to: *mut u8) -> bool {
    let ahead = (to as usize).wrapping_sub(from as usize) % PAGE_SIZE;
    ahead.wrapping_sub(1) < VECTOR - 1
}

/// `memcpy`, but not many times slower than that between some places.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
pub(super) unsafe fn bytes(from: *const u8, to: *mut u8, len: usize) {
    if len > PIECE && is_unlucky(from, to) {
        // SAFETY: the caller's promise.
        unsafe { pieces(from, to, len) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
}

/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[cold]
#[inline(never)]
unsafe fn pieces(from: *const u8, to: *mut u8, len: usize) {
    for at in (0..len).step_by(PIECE) {
        // SAFETY: `at` is less than `len`, and no piece ends after it.
        unsafe { std::ptr::copy_nonoverlapping(from.add(at), to.add(at), PIECE.min(len - at)) };
    }
}

/// Copies a small message word by word, from the last, which is padded with zeros, to the first.
///
/// The order is that of all that is stored of a record, for the reason that `writer::tail` gives. Only speed depends on it: on
/// 64-bit Arm the stores may become visible in any order, but before the header, which is a Release store.
/// A small message was often written a moment ago, field by field. Word loads are served from the stores that are still
/// under way; the wide loads of memcpy would have to wait for them. And a call costs as much as the copy.
///
/// # Safety
/// `to` is 8-aligned and valid for writing `message`'s length rounded up to 8 bytes, which nobody else writes.
#[inline(always)]
pub(super) unsafe fn words(message: &[u8], to: *mut u64) {
    // SAFETY: word `n` lies inside the rounded length, by the loops below.
    let put = |n: usize, word: u64| unsafe { AtomicU64::from_ptr(to.add(n)) }.store(word, Ordering::Relaxed);
    let (words, rest) = message.as_chunks::<8>();
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        put(words.len(), u64::from_ne_bytes(word));
    }
    for (n, word) in words.iter().enumerate().rev() {
        put(n, u64::from_ne_bytes(*word));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_wherever_the_two_begin() {
        let from: Vec<u8> = (0..4 * PAGE_SIZE).map(|n| (n % 251) as u8).collect();
        let mut unlucky = 0;
        for ahead in [0, 1, 16, 31, 32, 100] {
            for len in [0, 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 1, 9001] {
                let mut to = vec![0xff; 6 * PAGE_SIZE];
                let same = (from.as_ptr() as usize).wrapping_sub(to.as_ptr() as usize) % PAGE_SIZE;
                let begin = same + ahead;
                let place = to[begin..begin + len].as_mut_ptr();
                unlucky += usize::from(is_unlucky(from.as_ptr(), place));
                // SAFETY: both have `len` bytes from there on, by the slice above and by the length of `from`.
                unsafe { bytes(from.as_ptr(), place, len) };
                assert!(to[begin..begin + len] == from[..len], "{len} bytes, {ahead} ahead");
                assert!(to[..begin].iter().chain(&to[begin + len..]).all(|byte| *byte == 0xff));
            }
        }
        assert_eq!(unlucky, 3 * 7);
    }
}
