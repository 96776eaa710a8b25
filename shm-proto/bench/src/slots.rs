//! Fixed slots between a writer and its readers: the least that passing bytes through shared memory takes, to measure against.
//!
//! The writer copies bytes into the next slot and publishes an index. Every reader sums the bytes where they lie. All sides spin
//! and trust each other, every slot has the same size, and nobody attaches or leaves.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;

use shm_proto::internal::os::map::Mapping;
use shm_proto::internal::os::page::PAGE_SIZE;
use shm_proto::internal::os::prefetch::{AHEAD, prefetch};
use shm_proto::internal::os::reserve;
use shm_proto::{ProtocolError, SystemError};

/// The offset of the writer's index. The index of each reader follows, each on cache lines of its own.
const HEAD: usize = 0;
const LINES: usize = 128;
/// The number of looks at an index before the processor is offered to the process that is waited for.
const LOOKS: u32 = 1000;

/// What the memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of a slot: a multiple of 64.
    pub(crate) size: usize,
    /// The number of slots: a power of two.
    pub(crate) count: u64,
    /// The number of readers; each reads all slots.
    pub(crate) readers: u32,
}

impl Shape {
    /// Where the first slot begins.
    fn data(self) -> usize {
        (LINES * (self.readers as usize + 1)).next_multiple_of(PAGE_SIZE)
    }

    /// Bytes of memory that the indices and the slots take.
    fn len(self) -> Result<usize, ProtocolError> {
        let data = usize::try_from(self.count).ok().and_then(|count| count.checked_mul(self.size));
        let whole = self.size > 0 && self.size.is_multiple_of(64) && self.count.is_power_of_two();
        match data.and_then(|data| data.checked_add(self.data())) {
            Some(len) if whole && self.readers > 0 => Ok(len),
            _ => Err(ProtocolError::Broken(format!(
                "{} slots of {} bytes for {} readers: a power of two of whole lines is needed",
                self.count, self.size, self.readers
            ))),
        }
    }
}

#[derive(Debug)]
struct Slots {
    mapping: Mapping,
    shape: Shape,
    data: usize,
}

impl Slots {
    fn map(fd: BorrowedFd<'_>, shape: Shape) -> Result<Self, ProtocolError> {
        let len = shape.len()?;
        let there = fstat(fd).map_err(|error| SystemError::new("look at the slots received", error))?.st_size;
        if u64::try_from(there) != Ok(len as u64) {
            return Err(ProtocolError::Broken(format!("{shape:?} takes {len} bytes, there are {there}")));
        }
        let seals =
            fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|error| SystemError::new("look at the slots' seals", error))?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(ProtocolError::Broken("the slots received could still be cut short".to_owned()));
        }
        Ok(Slots { mapping: Mapping::read_write(fd, len)?, shape, data: shape.data() })
    }

    fn index(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: an aligned atomic before the slots. The mapping is writable, and a seal keeps the memory behind it.
        unsafe { self.mapping.view(offset) }
    }

    fn place(&self, index: u64) -> *mut u8 {
        let slot = (index & (self.shape.count - 1)) as usize;
        self.mapping.ptr().wrapping_add(self.data + slot * self.shape.size)
    }
}

/// Memory for slots of this shape.
///
/// # Errors
/// [`ProtocolError::System`] if there is no memory, [`ProtocolError::Broken`] if the shape is impossible.
pub(crate) fn create(shape: Shape) -> Result<OwnedFd, ProtocolError> {
    let len = shape.len()?;
    let failed = |step: &'static str| move |error| SystemError::new(format!("{step} {len} bytes of slots"), error);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create("slots", flags).map_err(failed("create"))?;
    reserve::now(fd.as_fd(), len as u64)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).map_err(failed("seal"))?;
    Ok(fd)
}

/// The side that fills slots.
#[derive(Debug)]
pub(crate) struct SlotWriter {
    slots: Slots,
    head: u64,
    published: u64,
    tail_seen: u64,
    batch: u64,
}

impl SlotWriter {
    /// Maps what [`create`] made of the same shape. The index is published after every `batch` slots.
    ///
    /// # Errors
    /// [`ProtocolError::Broken`] if the memory has another shape, [`ProtocolError::System`] if it cannot be mapped.
    pub(crate) fn open(fd: BorrowedFd<'_>, shape: Shape, batch: u64) -> Result<Self, ProtocolError> {
        let slots = Slots::map(fd, shape)?;
        Ok(SlotWriter { slots, head: 0, published: 0, tail_seen: 0, batch: batch.clamp(1, shape.count) })
    }

    /// Copies `bytes` into the next slot. Spins while all slots are full.
    ///
    /// # Panics
    /// If a slot is too small for `bytes`.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let Shape { size, count, .. } = self.slots.shape;
        assert!(bytes.len() <= size, "{} bytes in a slot of {size}", bytes.len());
        if self.head.wrapping_sub(self.tail_seen) >= count {
            self.await_space();
        }
        // SAFETY: `place` masks the index, so the slot lies in the mapping, which is writable and keeps its memory. The bytes
        // fit. `bytes` is a slice, so it is not shared memory and does not overlap the slot.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.slots.place(self.head), bytes.len()) };
        self.head += 1;
        if self.head - self.published >= self.batch {
            self.flush();
        }
    }

    #[inline(never)]
    fn await_space(&mut self) {
        // The readers can free only slots that they have been shown.
        self.flush();
        let Shape { count, readers, .. } = self.slots.shape;
        // Acquire pairs with the Release in `give_back`: a slot is read before it is written again.
        let slowest = || (1..=readers as usize).map(|n| self.slots.index(n * LINES).load(Ordering::Acquire)).min();
        let head = self.head;
        self.tail_seen = await_index(|| slowest().unwrap_or(head), |tail| head.wrapping_sub(tail) < count);
    }

    /// Shows the readers everything.
    #[inline]
    pub(crate) fn flush(&mut self) {
        self.published = self.head;
        // Release pairs with the Acquire in `sum`: a reader that sees the index sees the bytes.
        self.slots.index(HEAD).store(self.head, Ordering::Release);
    }
}

/// The side that reads slots.
#[derive(Debug)]
pub(crate) struct SlotReader {
    slots: Slots,
    /// The offset of this reader's index.
    own: usize,
    tail: u64,
    head_seen: u64,
    given_back: u64,
}

impl SlotReader {
    /// Maps what [`create`] made of the same shape, as reader `n`, counted from 0.
    ///
    /// # Errors
    /// [`ProtocolError::Broken`] if the memory has another shape or no such reader, [`ProtocolError::System`] if it cannot be
    /// mapped.
    pub(crate) fn open(fd: BorrowedFd<'_>, shape: Shape, n: u32) -> Result<Self, ProtocolError> {
        if n >= shape.readers {
            return Err(ProtocolError::Broken(format!("slots for {} readers have no reader {n}", shape.readers)));
        }
        let own = LINES * (n as usize + 1);
        Ok(SlotReader { slots: Slots::map(fd, shape)?, own, tail: 0, head_seen: 0, given_back: 0 })
    }

    /// The wrapping sum of the next slot's first `len` bytes as 8-byte words, the last word padded with zeroes. Spins until there
    /// is a next slot.
    ///
    /// # Panics
    /// If a slot has fewer bytes.
    #[inline]
    pub(crate) fn sum(&mut self, len: usize) -> u64 {
        let Shape { size, count, .. } = self.slots.shape;
        assert!(len <= size, "{len} bytes of a slot of {size}");
        if self.tail == self.head_seen {
            self.give_back();
            // Acquire pairs with the Release in `flush`.
            let head = || self.slots.index(HEAD).load(Ordering::Acquire);
            self.head_seen = await_index(head, |head| head != self.tail);
        }
        let place = self.slots.place(self.tail).cast_const();
        let mut sum = 0u64;
        // SAFETY: the word is inside the slot, which is aligned to 64 bytes and lies in the mapping. These are plain loads, after
        // the Acquire load of the head and before the Release store of the tail, so the writer does not write the slot meanwhile.
        // A writer that does so all the same makes the sum wrong: any bits are a u64.
        let word = |n: usize| unsafe { place.cast::<u64>().add(n).read() };
        let (lines, words) = (len / 64, len / 8);
        for line in 0..lines {
            if len - line * 64 > AHEAD {
                prefetch(place.wrapping_add(line * 64 + AHEAD));
            }
            for n in line * 8..line * 8 + 8 {
                sum = sum.wrapping_add(word(n));
            }
        }
        for n in lines * 8..words {
            sum = sum.wrapping_add(word(n));
        }
        if !len.is_multiple_of(8) {
            let mut last = [0; 8];
            // SAFETY: as above. Fewer than 8 bytes go to 8 bytes of our own.
            unsafe { ptr::copy_nonoverlapping(place.add(len / 8 * 8), last.as_mut_ptr(), len % 8) };
            sum = sum.wrapping_add(u64::from_ne_bytes(last));
        }
        self.tail += 1;
        if self.tail - self.given_back >= count.div_ceil(16) {
            self.give_back();
        }
        sum
    }

    #[inline]
    fn give_back(&mut self) {
        self.given_back = self.tail;
        // Release pairs with the Acquire in `await_space`: the slots are read before the index says so.
        self.slots.index(self.own).store(self.tail, Ordering::Release);
    }
}

/// Spins until the index is good. With more processes than processors, the process that changes the index may need this processor.
#[inline]
fn await_index(load: impl Fn() -> u64, is_good: impl Fn(u64) -> bool) -> u64 {
    loop {
        for _ in 0..LOOKS {
            let index = load();
            if is_good(index) {
                return index;
            }
            std::hint::spin_loop();
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(size: usize, count: u64, readers: u32) -> Shape {
        Shape { size, count, readers }
    }

    #[test]
    fn every_byte_arrives_in_order_at_every_reader_through_slots_that_are_reused() {
        // 40 readers' indices take more than a page.
        for readers in [1, 3, 40] {
            let shape = shape(128, 8, readers);
            let fd = create(shape).unwrap();
            let mut writer = SlotWriter::open(fd.as_fd(), shape, 3).unwrap();
            std::thread::scope(|scope| {
                for n in 0..readers {
                    let mut reader = SlotReader::open(fd.as_fd(), shape, n).unwrap();
                    scope.spawn(move || {
                        // Read every message, also after a wrong one: the writer would wait for this reader for ever.
                        let last = u64::from_ne_bytes([0, 0, 0, 1, 0, 0, 0, 0]);
                        let wrong = (0..1000u64).filter(|n| reader.sum(100) != n.wrapping_add(last)).count();
                        assert_eq!(wrong, 0);
                    });
                }
                for n in 0..1000u64 {
                    let mut bytes = [0; 100];
                    bytes[..8].copy_from_slice(&n.to_ne_bytes());
                    bytes[99] = 1;
                    writer.put(&bytes);
                }
                writer.flush();
            });
        }
    }

    #[test]
    fn other_numbers_than_those_they_were_made_with_are_refused() {
        let made = shape(64, 8, 1);
        let fd = create(made).unwrap();
        for (size, count) in [(64, 16), (128, 8), (0, 8), (60, 8), (64, 7), (64, 0), (usize::MAX - 63, 1 << 60)] {
            assert!(SlotReader::open(fd.as_fd(), shape(size, count, 1), 0).is_err(), "{count} of {size}");
        }
        assert!(SlotReader::open(fd.as_fd(), shape(64, 8, 0), 0).is_err());
        assert!(SlotReader::open(fd.as_fd(), shape(64, 8, 100), 0).is_err());
        assert!(SlotReader::open(fd.as_fd(), made, 1).unwrap_err().to_string().contains("no reader 1"));
        assert!(create(shape(64, 7, 1)).is_err() && create(shape(63, 8, 1)).is_err());
        let fd = shm_test_support::memory("unsealed");
        reserve::now(fd.as_fd(), 4096 + 64).unwrap();
        assert!(SlotReader::open(fd.as_fd(), shape(64, 1, 1), 0).unwrap_err().to_string().contains("cut short"));
    }
}
