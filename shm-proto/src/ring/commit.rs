//! Making records visible, and seeing them. Generic over the storage of the words, so that loom checks the code that
//! runs.

use super::record::{Header, TIME};
use crate::sync::{AtomicU64, Ordering, fence};

/// The data area as header words.
pub(crate) trait Words {
    /// The word at a byte offset, which must be a multiple of 8 inside the data area.
    fn word(&self, off: u64) -> &AtomicU64;
}

/// Clears the place of the next header, because old bytes there could look like a header. Call this before the record
/// becomes visible.
#[inline]
pub(crate) fn clear(words: &impl Words, next: u64) {
    words.word(next).store(Header::EMPTY.0, Ordering::Relaxed);
}

/// Puts a record behind one that is not visible yet, so its header may be stored at once.
#[inline]
pub(crate) fn stage(words: &impl Words, at: u64, header: Header) {
    words.word(at).store(header.0, Ordering::Relaxed);
}

/// Makes the record at `at` visible, together with all records staged behind it.
#[inline]
pub(crate) fn release(words: &impl Words, at: u64, header: Header) {
    // Release pairs with the Acquire fence in `look`: a process that sees this header also sees the payload, the publish
    // times, the staged records and the cleared next header.
    words.word(at).store(header.0, Ordering::Release);
}

/// Stores the publish time of the record at `at`. Call this before the record becomes visible.
#[inline]
pub(crate) fn set_time(words: &impl Words, at: u64, ns: u64) {
    words.word(at - TIME).store(ns, Ordering::Relaxed);
}

/// The publish time of the record at `at`, after a [`look`] at its header.
#[inline]
pub(crate) fn time(words: &impl Words, at: u64) -> u64 {
    words.word(at - TIME).load(Ordering::Relaxed)
}

/// Commits one record: clears the place of the next header, then stores the header of this record.
#[inline]
pub(crate) fn commit(words: &impl Words, at: u64, header: Header, next: u64) {
    clear(words, next);
    release(words, at, header);
}

/// The header at `at`. What the caller reads next includes everything that was written before the header was made
/// visible.
#[inline]
pub(crate) fn look(words: &impl Words, at: u64) -> Header {
    // A relaxed load and a fence instead of an Acquire load: a reader's mapping is read-only, and only relaxed loads
    // are defined on read-only memory. The machine code is the same on x86-64; on 64-bit Arm it is `ldr` and `dmb
    // ishld` instead of `ldar`.
    let header = Header(words.word(at).load(Ordering::Relaxed));
    // Acquire pairs with the Release store in `release`.
    fence(Ordering::Acquire);
    header
}
