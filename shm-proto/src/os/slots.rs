//! Fixed slots between two processes: the least that passing bytes through shared memory takes, to measure against.
//!
//! One writer copies bytes into the next slot and publishes an index, one reader sums them where they lie. Both spin, both
//! trust each other, nothing is of variable length, nobody attaches or leaves. `shmctl bench` compares the ring with it.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;

use super::map::Mapping;
use super::reserve;
use crate::error::{Error, Result};

/// Where the first slot begins; before it the writer's index and the reader's, each on lines of its own.
const DATA: usize = 4096;
const HEAD: usize = 0;
const TAIL: usize = 128;

#[derive(Debug)]
struct Slots {
    mapping: Mapping,
    /// Bytes of a slot: a multiple of 64.
    size: usize,
    /// How many there are: a power of two.
    count: u64,
}

impl Slots {
    /// Bytes that so many slots take; they are whole lines, and their number is a power of two.
    fn len(size: usize, count: u64) -> Result<usize> {
        let data = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        match data.and_then(|data| data.checked_add(DATA)) {
            Some(len) if size > 0 && size.is_multiple_of(64) && count.is_power_of_two() => Ok(len),
            _ => {
                Err(Error::Protocol(format!("{count} slots of {size} bytes: a power of two of whole lines is needed")))
            }
        }
    }

    fn map(fd: BorrowedFd<'_>, size: usize, count: u64) -> Result<Self> {
        let len = Self::len(size, count)?;
        let there = fstat(fd).map_err(|error| Error::system("look at the slots received", error))?.st_size;
        if u64::try_from(there) != Ok(len as u64) {
            return Err(Error::Protocol(format!("{count} slots of {size} bytes take {len}, there are {there}")));
        }
        let seals =
            fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|error| Error::system("look at the slots' seals", error))?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(Error::Protocol("the slots received could still be cut short".to_owned()));
        }
        Ok(Slots { mapping: Mapping::read_write(fd, len)?, size, count })
    }

    fn index(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: an atomic in the first page, which is mapped for writing and has memory for ever (sealed).
        unsafe { self.mapping.view(offset) }
    }

    fn place(&self, index: u64) -> *mut u8 {
        let slot = (index & (self.count - 1)) as usize;
        self.mapping.ptr().wrapping_add(DATA + slot * self.size)
    }
}

/// Memory for `count` slots of `size` bytes: a power of two of them, and a multiple of 64.
///
/// # Errors
/// [`Error::System`] when there is no memory, [`Error::Protocol`] for impossible numbers.
pub fn create(size: usize, count: u64) -> Result<OwnedFd> {
    let len = Slots::len(size, count)?;
    let failed = |step: &'static str| move |error| Error::system(format!("{step} {len} bytes of slots"), error);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create("slots", flags).map_err(failed("create"))?;
    reserve::now(fd.as_fd(), len as u64)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).map_err(failed("seal"))?;
    Ok(fd)
}

/// The side that fills slots.
#[derive(Debug)]
pub struct SlotWriter {
    slots: Slots,
    head: u64,
    published: u64,
    tail_seen: u64,
    batch: u64,
}

impl SlotWriter {
    /// Maps what [`create`] made with the same numbers; the index is published after every `batch` slots.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is something else, [`Error::System`] when it cannot be mapped.
    pub fn open(fd: BorrowedFd<'_>, size: usize, count: u64, batch: u64) -> Result<Self> {
        let slots = Slots::map(fd, size, count)?;
        Ok(SlotWriter { slots, head: 0, published: 0, tail_seen: 0, batch: batch.clamp(1, count) })
    }

    /// Copies `bytes` into the next slot; spins while all are full.
    ///
    /// # Panics
    /// When they are more than a slot holds.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.slots.size, "{} bytes in a slot of {}", bytes.len(), self.slots.size);
        while self.head.wrapping_sub(self.tail_seen) >= self.slots.count {
            // The reader cannot free what it has not been shown.
            self.flush();
            // Acquire pairs with the Release in `give_back`: the slot has been read before it is written again.
            self.tail_seen = self.slots.index(TAIL).load(Ordering::Acquire);
            std::hint::spin_loop();
        }
        // SAFETY: `place` masks the index, so the slot lies in the mapping, which is writable and has memory for ever; the
        // bytes fit; `bytes` is not shared memory, or it would not be a slice.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.slots.place(self.head), bytes.len()) };
        self.head += 1;
        if self.head - self.published >= self.batch {
            self.flush();
        }
    }

    /// Shows the reader everything.
    #[inline]
    pub fn flush(&mut self) {
        self.published = self.head;
        // Release pairs with the Acquire in `sum`: the bytes are there before the index is.
        self.slots.index(HEAD).store(self.head, Ordering::Release);
    }
}

/// The side that reads slots.
#[derive(Debug)]
pub struct SlotReader {
    slots: Slots,
    tail: u64,
    head_seen: u64,
    given_back: u64,
}

impl SlotReader {
    /// Maps what [`create`] made with the same numbers.
    ///
    /// # Errors
    /// [`Error::Protocol`] when it is something else, [`Error::System`] when it cannot be mapped.
    pub fn open(fd: BorrowedFd<'_>, size: usize, count: u64) -> Result<Self> {
        Ok(SlotReader { slots: Slots::map(fd, size, count)?, tail: 0, head_seen: 0, given_back: 0 })
    }

    /// The wrapping sum of the next slot's first `len` bytes as 8-byte words, the last padded with zeroes; spins until
    /// there is one.
    ///
    /// # Panics
    /// When a slot has fewer bytes.
    #[inline]
    pub fn sum(&mut self, len: usize) -> u64 {
        assert!(len <= self.slots.size, "{len} bytes of a slot of {}", self.slots.size);
        if self.tail == self.head_seen {
            self.give_back();
            while self.tail == self.head_seen {
                std::hint::spin_loop();
                // Acquire pairs with the Release in `flush`.
                self.head_seen = self.slots.index(HEAD).load(Ordering::Acquire);
            }
        }
        let place = self.slots.place(self.tail).cast_const();
        let mut sum = 0u64;
        for word in 0..len / 8 {
            // SAFETY: inside the slot, which is 64-aligned and lies in the mapping; the writer does not touch it until the
            // tail has passed it. A writer that breaks that makes the sum wrong: any bits are a u64.
            sum = sum.wrapping_add(unsafe { place.cast::<u64>().add(word).read() });
        }
        if !len.is_multiple_of(8) {
            let mut last = [0; 8];
            // SAFETY: as above; fewer than 8 bytes go to 8 of our own.
            unsafe { ptr::copy_nonoverlapping(place.add(len / 8 * 8), last.as_mut_ptr(), len % 8) };
            sum = sum.wrapping_add(u64::from_ne_bytes(last));
        }
        self.tail += 1;
        if self.tail - self.given_back >= self.slots.count.div_ceil(16) {
            self.give_back();
        }
        sum
    }

    #[inline]
    fn give_back(&mut self) {
        self.given_back = self.tail;
        // Release pairs with the Acquire in `put`.
        self.slots.index(TAIL).store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_in_order_through_slots_that_are_reused() {
        let fd = create(128, 8).unwrap();
        let mut writer = SlotWriter::open(fd.as_fd(), 128, 8, 3).unwrap();
        let mut reader = SlotReader::open(fd.as_fd(), 128, 8).unwrap();
        let sender = std::thread::spawn(move || {
            for n in 0..10_000u64 {
                let mut bytes = [0; 100];
                bytes[..8].copy_from_slice(&n.to_ne_bytes());
                bytes[99] = 1;
                writer.put(&bytes);
            }
            writer.flush();
        });
        for n in 0..10_000u64 {
            assert_eq!(reader.sum(100), n.wrapping_add(u64::from_ne_bytes([0, 0, 0, 1, 0, 0, 0, 0])));
        }
        sender.join().unwrap();
    }

    #[test]
    fn other_numbers_than_those_they_were_made_with_are_refused() {
        let fd = create(64, 8).unwrap();
        for (size, count) in [(64, 16), (128, 8), (0, 8), (60, 8), (64, 7), (64, 0), (usize::MAX - 63, 1 << 60)] {
            assert!(SlotReader::open(fd.as_fd(), size, count).is_err(), "{count} of {size}");
        }
        assert!(create(64, 7).is_err() && create(63, 8).is_err());
        let fd = crate::os::testing::memory("unsealed");
        reserve::now(fd.as_fd(), 4096 + 64).unwrap();
        assert!(SlotReader::open(fd.as_fd(), 64, 1).unwrap_err().to_string().contains("cut short"));
    }
}
