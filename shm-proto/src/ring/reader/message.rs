//! A message in shared memory.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Reader;
use super::moves::Standing;
use super::next_record::State;
use super::position::Found;
use super::ready::Ready;
use crate::os::prefetch::{AHEAD, prefetch};
use crate::ring::copy;
use crate::ring::reader::error::{ReaderError, Result};

/// A message in the shared memory, borrowed from the reader. The next message can be received after this one is
/// dropped.
///
/// The bytes belong to the writer. On a `block` or `drop` channel, they do not change while the message lives, unless
/// this reader is evicted in the meantime. On an `overwrite` channel, they may change at any time. So there is no
/// `&[u8]`: copy or load the bytes, and then ask [`finish`](Message::finish) whether they were valid.
#[derive(Debug)]
#[must_use = "a message that is dropped is passed without a word about whether it was overwritten: see `finish`"]
pub struct Message<'a> {
    // Three words, so that receiving a message costs no memory traffic. Everything else follows from the reader's
    // position.
    reader: &'a mut Reader,
    found: Found,
}

impl<'a> Message<'a> {
    /// The record at the reader's current place.
    #[inline(always)]
    pub(super) fn new(reader: &'a mut Reader, found: Found) -> Message<'a> {
        Message { reader, found }
    }

    /// The reader that lends the message.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        self.reader
    }

    /// The message's number: numbers start at 0 when the segment is created, and have no gaps.
    #[inline]
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.reader.position.seq()
    }

    /// How many messages were lost to overwriting between the previous received message and this one.
    #[inline]
    #[must_use]
    pub fn lost_before(&self) -> u64 {
        self.reader.losses.lost_before(self.seq())
    }

    /// How many numbers were skipped just before this message because a broken segment was replaced. It is not known
    /// whether there were messages with these numbers, and they do not count as lost.
    #[inline]
    #[must_use]
    pub fn skipped_before(&self) -> u64 {
        self.reader.losses.skipped_before(self.seq())
    }

    /// When the message was published, in nanoseconds of `CLOCK_MONOTONIC`, which all processes of the machine share and which is
    /// never set. `None` if the channel has no publish times (`timestamps = true`). As with the bytes, a message that
    /// [`finish`](Self::finish) finds overwritten may have shown the time of another.
    #[inline]
    #[must_use]
    pub fn published_ns(&self) -> Option<u64> {
        self.reader.position.time(&self.found)
    }

    /// Payload bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether the message has no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The address of the first byte, aligned as the channel says. The memory stays mapped as long as the [`Reader`]
    /// lives, but another process writes it, so reading through the pointer is the caller's responsibility.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.reader.position.payload(&self.found)
    }

    /// The bytes as a slice, for channels whose writer is trusted.
    ///
    /// # Safety
    /// The bytes must not change while the slice lives: the channel is `block` or `drop`, its writer follows the
    /// protocol, and this reader is not evicted in the meantime (`evict_after = "0"`, or the program finishes with a
    /// message sooner).
    #[inline]
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: a `Found` lies in the data area with all its bytes, and the reader, which is borrowed, has not moved
        // since; the caller promises the rest.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// Copies the bytes to the front of `out`, and returns their number.
    ///
    /// # Panics
    /// If `out` is shorter than the message.
    #[inline]
    pub fn copy_to(&self, out: &mut [u8]) -> usize {
        let out = &mut out[..self.len()];
        // SAFETY: a `Found` lies in the data area with all its bytes, and the reader, which is borrowed, has not moved
        // since. The destination has as many bytes. The two do not overlap: only this program can access `out`, and
        // nothing may be written through the mapping. The bytes may change during the copy; they are plain bytes, and
        // nothing is concluded from them here.
        unsafe { copy::bytes(self.as_ptr(), out.as_mut_ptr(), out.len()) };
        self.len()
    }

    /// Fills `out` with the bytes from byte `from` on, for messages that are processed in pieces.
    ///
    /// # Panics
    /// If the message has fewer bytes.
    pub fn copy_part(&self, from: usize, out: &mut [u8]) {
        assert!(from <= self.len() && out.len() <= self.len() - from, "a part outside the message");
        // SAFETY: the assertion shows that the bytes are part of the message; otherwise as in `copy_to`.
        unsafe { copy::bytes(self.as_ptr().add(from), out.as_mut_ptr(), out.len()) };
    }

    /// Replaces the contents of `out` with the bytes. Allocates only if `out` is too small.
    pub fn copy_to_vec(&self, out: &mut Vec<u8>) {
        out.clear();
        self.append_to(out);
    }

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let len = self.len();
        out.reserve(len);
        // SAFETY: as in `copy_to`. `reserve` made room for `len` more bytes, and the copy initialises them.
        unsafe {
            copy::bytes(self.as_ptr(), out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    /// The bytes as little-endian 8-byte words, each loaded once from shared memory; the last word is padded with
    /// zeros.
    #[inline]
    #[must_use]
    pub fn words(&self) -> Words<'_> {
        Words { ptr: self.as_ptr(), left: self.len(), message: std::marker::PhantomData }
    }

    /// Passes the message if it is settled, or gives it back.
    #[inline(always)]
    pub(super) fn pass_settled(self) -> std::result::Result<(), Message<'a>> {
        let mut this = ManuallyDrop::new(self);
        let found = this.found;
        if this.reader.pass_settled(found) { Ok(()) } else { Err(ManuallyDrop::into_inner(this)) }
    }

    /// Whether the bytes that were read up to now are valid. If they are not, [`finish`](Self::finish) says why.
    ///
    /// # Errors
    /// [`ReaderError::Evicted`] if this reader was evicted: then it is not known.
    pub fn is_valid(&mut self) -> Result<bool> {
        Ok(self.reader.state_for_certain()? == State::Whole)
    }

    /// Lets go of the reader, which stays at the message. For bindings to languages whose objects cannot borrow: see
    /// [`Reader::message`].
    #[doc(hidden)]
    #[inline(always)]
    pub fn into_ready(self) -> Ready {
        Ready::new(ManuallyDrop::new(self).found)
    }

    /// Finishes with the message, and says whether the bytes that were read are valid.
    ///
    /// # Errors
    /// [`ReaderError::Lapped`] if the message was overwritten in the meantime, and [`ReaderError::Evicted`] if this
    /// reader was evicted. [`ReaderError::Withdrawn`] if the record was not a message: the next message is received in
    /// its place.
    #[inline(always)]
    pub fn finish(self) -> Result<()> {
        let mut this = ManuallyDrop::new(self);
        let found = this.found;
        if this.reader.pass_settled(found) {
            return Ok(());
        }
        this.reader.finish(Some(found))
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
    /// Leaves the record at the current place without a result for the program. The next call reports what follows from
    /// it.
    #[cold]
    #[inline(never)]
    fn leave(&mut self, found: Found) {
        match self.standing() {
            // This call must not wait.
            Ok(Standing::Unknown) => self.left = Some(found),
            _ => drop(self.finish(Some(found))),
        }
    }

    /// The state of the record at the current place. Waits for the daemon's line if necessary.
    fn state_for_certain(&mut self) -> Result<State> {
        loop {
            match self.standing_for_certain().and_then(|_| self.state()) {
                Ok(State::Unknown) => {}
                state => return state,
            }
        }
    }

    /// Leaves the record at the current place, and passes it if it was a message. In any case, the losses before it
    /// have been reported with it, and the next message reports only later losses.
    ///
    /// Without a record: there was a message at the current place, and something else is there now.
    #[cold]
    #[inline(never)]
    pub(super) fn finish(&mut self, found: Option<Found>) -> Result<()> {
        match self.state_for_certain() {
            Ok(State::Whole) => match found {
                Some(found) => {
                    self.pass(found);
                    Ok(())
                }
                None => Err(self.position.corrupt(self.position.look())),
            },
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
                // It is not known what was read, so it does not count as received.
                let seq = self.seq();
                if let Some(found) = found {
                    self.pass(found);
                    self.losses.lose(seq, 1);
                }
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
    /// Loads the word `n` words ahead. The caller checks that at least one byte of it is left.
    #[inline]
    fn load(&self, n: usize) -> u64 {
        debug_assert!(n * 8 < self.left);
        // SAFETY: payloads are 8-aligned and padded to 8 bytes inside the mapping, so a whole word can be loaded if at
        // least one byte of it is left. The load is atomic, because another process may be writing the word. It is
        // relaxed, which is required on read-only memory, and nothing is stored.
        let word = unsafe { &*self.ptr.wrapping_add(n * 8).cast::<AtomicU64>() };
        u64::from_le(word.load(Ordering::Relaxed))
    }

    /// Loads the next eight words. The caller checks that all of them are left.
    ///
    /// These are four loads instead of eight, and the compiler can continue with vectors, so that reading a large
    /// message takes a tenth less time. This is assembly, because each load must happen exactly once, like an atomic
    /// load, and there are no atomic vectors.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn load_line(&self) -> [u64; 8] {
        use std::arch::{asm, x86_64::__m128i};
        debug_assert!(self.left >= 64);
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: the payload has 64 more bytes, so they lie inside the mapping. The compiler does not see the loads,
        // so it concludes nothing from memory that another process may be writing. Every x86-64 processor has SSE2.
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
            // SAFETY: both types are 64 bytes of integers, in the order of their addresses.
            std::mem::transmute::<[__m128i; 4], [u64; 8]>([a, b, c, d])
        }
    }

    /// Loads the next eight words. The caller checks that all of them are left.
    ///
    /// Word by word. The order in which the processor loads them does not matter, because the fence in `look` comes
    /// before all of them, and the fence in `is_unchanged` or `has_passed` comes after them.
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

    /// Reads a cache line at a time. `sum`, `for_each` and similar methods use this.
    #[inline]
    fn fold<B, F: FnMut(B, u64) -> B>(mut self, init: B, mut f: F) -> B {
        let mut folded = init;
        while self.left >= 64 {
            // Do not prefetch behind the message: the writer may be about to write there.
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
