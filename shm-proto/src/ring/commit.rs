//! Making records visible, and seeing them. Generic over where the words are, so that loom checks this very code.

use super::record::Header;
use crate::sync::{AtomicU64, Ordering, fence};

/// The data area as header words.
pub trait Words {
    /// The word at a byte offset that is a multiple of 8 and inside the data area.
    fn word(&self, off: u64) -> &AtomicU64;
}

/// Clears the place of the next header, because old bytes there could be taken for one. Before the record is made visible.
#[inline]
pub fn clear(words: &impl Words, next: u64) {
    words.word(next).store(Header::EMPTY.0, Ordering::Relaxed);
}

/// Puts a record behind one that is not visible yet: the header may be stored at once.
#[inline]
pub fn stage(words: &impl Words, at: u64, header: Header) {
    words.word(at).store(header.0, Ordering::Relaxed);
}

/// Makes the record at `at` visible, with everything staged behind it.
#[inline]
pub fn release(words: &impl Words, at: u64, header: Header) {
    // Release: pairs with the Acquire fence in `look`; payload, staged records and the cleared next header come with it.
    words.word(at).store(header.0, Ordering::Release);
}

/// Commits one record: clears the place of the next header, then stores this one.
#[inline]
pub fn commit(words: &impl Words, at: u64, header: Header, next: u64) {
    clear(words, next);
    release(words, at, header);
}

/// The header at `at`, with everything written before it was made visible.
#[inline]
pub fn look(words: &impl Words, at: u64) -> Header {
    // A relaxed load and a fence, not an Acquire load: a reader's mapping is read-only, and only relaxed loads are defined
    // there. The machine code is the same on x86-64; on 64-bit Arm it is `ldr` and `dmb ishld` in place of `ldar`.
    let header = Header(words.word(at).load(Ordering::Relaxed));
    // Acquire: pairs with the Release in `release`.
    fence(Ordering::Acquire);
    header
}
