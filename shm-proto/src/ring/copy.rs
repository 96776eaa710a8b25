//! Copying payloads into the segment and out of it.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::page::PAGE_SIZE;

/// The largest message that is copied word by word, from the last word to the first.
pub(super) const SMALL: usize = 256;
/// The size of the pieces of a copy to an [unlucky](is_unlucky) place. For more bytes at once, the C library's `memcpy`
/// may use `rep movsb`.
const PIECE: usize = 2048;
/// The size of a processor's vector register, in bytes.
const VECTOR: usize = 32;

/// Whether the destination is less than a vector further in its page than the source. The processor then takes each
/// load for a load of bytes that were stored just before, because it compares only the offset in the page. On Zen 4,
/// `rep movsb` then copies 3 GB/s instead of 45 GB/s. Copies in pieces of 2 KiB, which do not use `rep movsb`, reach 15
/// to 39 GB/s.
#[inline(always)]
fn is_unlucky(from: *const u8, to: *mut u8) -> bool {
    let ahead = (to as usize).wrapping_sub(from as usize) % PAGE_SIZE;
    ahead.wrapping_sub(1) < VECTOR - 1
}

/// `memcpy`, without being many times slower between certain places.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
pub(super) unsafe fn bytes(from: *const u8, to: *mut u8, len: usize) {
    if len > PIECE && is_unlucky(from, to) {
        // SAFETY: promised by the caller.
        unsafe { pieces(from, to, len) };
    } else {
        // SAFETY: promised by the caller.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
}

/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
#[cold]
#[inline(never)]
unsafe fn pieces(from: *const u8, to: *mut u8, len: usize) {
    for at in (0..len).step_by(PIECE) {
        // SAFETY: `at` is less than `len`, and no piece ends after `len`.
        unsafe { std::ptr::copy_nonoverlapping(from.add(at), to.add(at), PIECE.min(len - at)) };
    }
}

/// Copies a small message word by word, from the last word, which is padded with zeros, to the first.
///
/// The words are stored in the order that `writer::tail` uses for the whole record, and for the same reason. Only speed
/// depends on the order: on 64-bit Arm, the stores may become visible in any order, but before the header, which is a
/// Release store. Often, the program wrote a small message a moment ago, field by field. The processor can serve word
/// loads from stores that are still in progress, whereas the wide loads of `memcpy` would have to wait for them.
/// Besides, the call of `memcpy` takes as long as the copy.
///
/// # Safety
/// `to` is 8-aligned and valid for writes of `message`'s length rounded up to 8 bytes, and no other code writes these
/// bytes.
#[inline(always)]
pub(super) unsafe fn words(message: &[u8], to: *mut u64) {
    // SAFETY: word `n` lies inside the rounded length, because of the loops below.
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
                // SAFETY: both have `len` bytes from there on: the destination because of the slice above, the source
                // because of the length of `from`.
                unsafe { bytes(from.as_ptr(), place, len) };
                assert!(to[begin..begin + len] == from[..len], "{len} bytes, {ahead} ahead");
                assert!(to[..begin].iter().chain(&to[begin + len..]).all(|byte| *byte == 0xff));
            }
        }
        assert_eq!(unlucky, 3 * 7);
    }
}
