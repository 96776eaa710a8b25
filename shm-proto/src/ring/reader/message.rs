//! A message where it lies.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Reader;
use super::moves::Standing;
use super::next_record::State;
use super::position::Found;
use crate::os::prefetch::{AHEAD, prefetch};
use crate::ring::copy;
use crate::ring::reader::error::{ReaderError, Result};

/// A message in the shared memory, borrowed from the reader; the next one is received after this is dropped.
///
/// The bytes belong to the writer. On a `block` or `drop` channel they stay what they are as long as the message lives,
/// unless this reader is evicted meanwhile; on an `overwrite` channel they may change at any time. So there is no `&[u8]`:
/// the bytes are copied or loaded out, and [`finish`](Message::finish) says afterwards whether what was seen can be believed.
#[derive(Debug)]
#[must_use = "a message that is dropped is passed without a word about whether it was overwritten: see `finish`"]
pub struct Message<'a> {
    // Three words, so that receiving one costs no memory traffic: everything else follows from where the reader stands.
    reader: &'a mut Reader,
    found: Found,
}

impl<'a> Message<'a> {
    /// The record that the reader stands at.
    #[inline(always)]
    pub(super) fn new(reader: &'a mut Reader, found: Found) -> Message<'a> {
        Message { reader, found }
    }

    /// The message's number: counted from 0 when the segment was made, without gaps.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.reader.position.seq()
    }

    /// How many messages between the one received before and this one were lost to overwriting.
    #[must_use]
    pub fn lost_before(&self) -> u64 {
        self.reader.losses.lost_before(self.seq())
    }

    /// How many numbers were left out just before this message, because a broken segment was replaced: of those messages it is
    /// not known whether there were any, and they count as no loss.
    #[must_use]
    pub fn skipped_before(&self) -> u64 {
        self.reader.losses.skipped_before(self.seq())
    }

    /// Payload bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether the message has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first byte, aligned as the channel says. Reading through it is up to the caller; the memory stays mapped as long
    /// as the [`Reader`] lives, but another process writes it.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.reader.position.payload(&self.found)
    }

    /// The bytes as a slice, for channels whose writer is trusted.
    ///
    /// # Safety
    /// The bytes must not change while the slice lives: the channel is `block` or `drop`, its writer keeps to the protocol,
    /// and this reader is not evicted meanwhile (`evict_after = "0"`, or a message is done with sooner).
    #[inline]
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: a `Found` lies in the data area with all its bytes, and nobody has moved the reader, which is borrowed since; the caller promises the rest.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// Copies the bytes to the front of `out`; returns how many.
    ///
    /// # Panics
    /// When `out` is shorter than the message.
    #[inline]
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        let out = &mut out[..self.len()];
        // SAFETY: a `Found` lies in the data area with all its bytes, and nobody has moved the reader, which is borrowed since, and the destination has as many. The two do not overlap:
        // `out` is this program's alone, and the mapping is nobody's to write through. The bytes may change while they are
        // copied; they are plain bytes and nothing is concluded from them here.
        unsafe { copy::bytes(self.as_ptr(), out.as_mut_ptr(), out.len()) };
        self.len()
    }

    /// Fills `out` with the bytes from byte `from` on: for messages that are to be gone through in pieces.
    ///
    /// # Panics
    /// If the message has fewer bytes.
    pub fn copy_part(&self, from: usize, out: &mut [u8]) {
        assert!(from <= self.len() && out.len() <= self.len() - from, "a part outside the message");
        // SAFETY: by the assertion the bytes are among the message's; otherwise as in `copy_to`.
        unsafe { copy::bytes(self.as_ptr().add(from), out.as_mut_ptr(), out.len()) };
    }

    /// Replaces the contents of `out` with the bytes; allocates only when `out` is too small.
    pub fn copy_to_vec(&self, out: &mut Vec<u8>) {
        out.clear();
        self.append_to(out);
    }

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let len = self.len();
        out.reserve(len);
        // SAFETY: as in `copy_to`; `reserve` made room for `len` more bytes, which are initialised by the copy.
        unsafe {
            copy::bytes(self.as_ptr(), out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    /// The bytes as little-endian 8-byte words, each loaded once from where it lies; the last is padded with zeros.
    #[inline]
    #[must_use]
    pub fn words(&self) -> Words<'_> {
        Words { ptr: self.as_ptr(), left: self.len(), message: std::marker::PhantomData }
    }

    /// Says that the message is done with, and whether what was seen of it can be believed.
    ///
    /// # Errors
    /// [`ReaderError::Lapped`] when it was overwritten meanwhile, [`ReaderError::Evicted`] when this reader was.
    /// [`ReaderError::Withdrawn`] when it was no message: the next one is received in its place.
    #[inline(always)]
    pub fn finish(self) -> Result<()> {
        let mut this = ManuallyDrop::new(self);
        let found = this.found;
        if this.reader.pass_settled(found) {
            return Ok(());
        }
        this.reader.finish(found)
    }
}

impl Drop for Message<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.reader.pass_settled(self.found) {
            self.reader.leave(self.found);
        }
    }
}

impl Reader {
    /// Leaves the record at the present place behind without a word about what was seen. The next call tells what follows
    /// from it.
    #[cold]
    #[inline(never)]
    fn leave(&mut self, found: Found) {
        match self.standing() {
            // Nothing is waited for here.
            Ok(Standing::Unknown) => self.left = Some(found),
            _ => drop(self.finish(found)),
        }
    }

    /// Leaves the record at the present place behind, if it was one. Whatever it was, the losses before it have been told with it;
    /// the next one tells what was lost since.
    #[cold]
    #[inline(never)]
    fn finish(&mut self, found: Found) -> Result<()> {
        let state = loop {
            match self.standing_for_certain().and_then(|_| self.state()) {
                Ok(State::Unknown) => {}
                state => break state,
            }
        };
        match state {
            Ok(State::Whole) => {
                self.pass(found);
                Ok(())
            }
            Ok(State::Overwritten) => {
                self.losses.told();
                let before = self.lost();
                self.catch_up()?;
                Err(ReaderError::Lapped { channel: self.geometry().channel.to_string(), lost: self.lost() - before })
            }
            Ok(_) => {
                self.losses.told();
                let (channel, seq) = (self.geometry().channel.to_string(), self.seq());
                self.go_over()?;
                Err(ReaderError::Withdrawn { channel, seq })
            }
            Err(error @ ReaderError::Corrupt { .. }) => {
                self.losses.told();
                let (channel, seq) = (self.geometry().channel.to_string(), self.seq());
                Err(self.on_error(error)?.unwrap_or(ReaderError::Withdrawn { channel, seq }))
            }
            Err(e) => {
                self.losses.told();
                // It is not known what was read, so it was not received.
                let seq = self.seq();
                self.pass(found);
                self.losses.lose(seq, 1);
                Err(e)
            }
        }
    }
}

/// The words of a message; see [`Message::words`].
#[derive(Debug)]
pub struct Words<'a> {
    ptr: *const u8,
    left: usize,
    message: std::marker::PhantomData<&'a u8>,
}

impl Words<'_> {
    /// The word `n` words ahead. The caller has at least one byte of it left.
    #[inline]
    fn load(&self, n: usize) -> u64 {
        debug_assert!(n * 8 < self.left);
        // SAFETY: payloads are 8-aligned and padded to 8 bytes inside the mapping, so a whole word can be loaded as long as
        // one byte of it is left. The load is atomic: the word may be written by another process at this moment. It is
        // relaxed, as it has to be on read-only memory, and nothing is stored.
        let word = unsafe { &*self.ptr.wrapping_add(n * 8).cast::<AtomicU64>() };
        u64::from_le(word.load(Ordering::Relaxed))
    }

    /// The next eight words. The caller has all of them left.
    ///
    /// Four loads instead of eight, and the compiler may go on with vectors: a large message is read a tenth faster. Assembly,
    /// because these loads must be made once each, like atomic ones, and there are no atomic vectors.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn load_line(&self) -> [u64; 8] {
        use std::arch::{asm, x86_64::__m128i};
        debug_assert!(self.left >= 64);
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: the 64 bytes are left of the payload, so they lie inside the mapping. The compiler does not see the loads,
        // so it concludes nothing from memory that another process may write at this moment. Every x86-64 has SSE2.
        unsafe {
            asm!(
                "movdqu {a}, [{line}]",
                "movdqu {b}, [{line} + 16]",
                "movdqu {c}, [{line} + 32]",
                "movdqu {d}, [{line} + 48]",
                line = in(reg) self.ptr,
                a = out(xmm_reg) a,
                b = out(xmm_reg) b,
                c = out(xmm_reg) c,
                d = out(xmm_reg) d,
                options(readonly, nostack, preserves_flags),
            );
            // SAFETY: both are 64 bytes of integers, in the order of their addresses.
            std::mem::transmute::<[__m128i; 4], [u64; 8]>([a, b, c, d])
        }
    }

    /// The next eight words. The caller has all of them left.
    ///
    /// Word by word: in which order the processor loads them means nothing, because the fence in `look` comes before all of them
    /// and the one in `is_unchanged` or `has_passed` after.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn load_line(&self) -> [u64; 8] {
        std::array::from_fn(|n| self.load(n))
    }

    #[inline]
    fn pass(&mut self, bytes: usize) {
        self.ptr = self.ptr.wrapping_add(bytes);
        self.left -= bytes;
    }
}

impl Iterator for Words<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        if self.left >= 8 {
            let word = self.load(0);
            self.pass(8);
            return Some(word);
        }
        if self.left == 0 {
            return None;
        }
        let unused = 64 - 8 * self.left as u32;
        let word = self.load(0) << unused >> unused;
        self.pass(self.left);
        Some(word)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let words = self.left.div_ceil(8);
        (words, Some(words))
    }

    /// A line at a time: what `sum`, `for_each` and the like use.
    #[inline]
    fn fold<B, F: FnMut(B, u64) -> B>(mut self, init: B, mut f: F) -> B {
        let mut folded = init;
        while self.left >= 64 {
            // Not behind the message: the writer may be about to write there.
            if self.left > AHEAD {
                prefetch(self.ptr.wrapping_add(AHEAD));
            }
            for word in self.load_line() {
                folded = f(folded, word);
            }
            self.pass(64);
        }
        for word in self {
            folded = f(folded, word);
        }
        folded
    }
}

impl ExactSizeIterator for Words<'_> {}
