//! A mapped segment, and how to create one.
#![allow(unsafe_code)]

use std::mem::offset_of;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::uio::pwrite;

use super::commit::Words;
use super::copy::{self, SMALL};
use super::layout::{self, Counters, DATA_OFFSET, Identity, LAYOUT_VERSION, MAGIC, SegmentHeader};
use super::notes::put_words;
use super::published::{Place, PlaceCell, Published};
use super::record::{LEAST_ALIGN, MAX_CAPACITY, MOST_ALIGN, first_header, is_alignment};
use crate::error::{Result, SystemError};
use crate::os::map::Mapping;
use crate::os::prefetch::prefetch;
use crate::os::reserve;
use crate::ring::geometry::{Geometry, OnFull};
use crate::ring::{ReaderError, WriterError};

/// The process that creates a segment, so that a later process can find out whether it is still alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process number.
    pub pid: u32,
    /// The process's start, in clock ticks after boot.
    pub start: u64,
    /// The kernel's boot id.
    pub boot_id: [u64; 2],
    /// See [`Identity::home`].
    pub home: u64,
}

/// The word for [`Identity::flags`].
pub(super) fn flags_of(geometry: &Geometry) -> u64 {
    let on_full = match geometry.on_full {
        OnFull::Block => 0,
        OnFull::Drop => 1,
        OnFull::Overwrite => 2,
    };
    on_full | if geometry.asymmetric { layout::flags::ASYMMETRIC } else { 0 }
}

/// Writes the header of a new segment. No other process may use the file yet. The file is either empty, and then this
/// function reserves memory for it, or it already has its length and its memory.
///
/// # Errors
/// If there is no memory for the header page and `capacity` bytes.
pub fn create_segment(fd: BorrowedFd<'_>, geometry: &Geometry, capacity: u64, owner: Owner) -> Result<()> {
    if reserve::length(fd)? < DATA_OFFSET + capacity {
        reserve::in_child(fd, 0, DATA_OFFSET + capacity, &AtomicBool::new(false))?;
    }
    begin_segment(fd, geometry, capacity, owner, &Beginning::default())
}

/// Where the chain of records in a segment begins, and the counts before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beginning {
    /// Position of the first record.
    pub pos: u64,
    /// Its number.
    pub seq: u64,
    /// Payload bytes before it.
    pub bytes: u64,
    /// Messages dropped so far.
    pub dropped: u64,
    /// Messages overwritten so far.
    pub overwritten: u64,
    /// Changes of capacity so far.
    pub resizes: u64,
    /// Readers evicted so far.
    pub evicted: u64,
    /// The instance of the previous segment, 0 for none.
    pub previous: u64,
}

/// Writes the header of a segment that has its memory and that no other process has seen yet.
///
/// # Errors
/// If the header cannot be written.
pub fn begin_segment(
    fd: BorrowedFd<'_>,
    geometry: &Geometry,
    capacity: u64,
    owner: Owner,
    beginning: &Beginning,
) -> Result<()> {
    let mut page = [0u8; DATA_OFFSET as usize];
    let mut put = |at: usize, word: u64| page[at..at + 8].copy_from_slice(&word.to_le_bytes());
    let identity = offset_of!(SegmentHeader, identity);
    put(identity + offset_of!(Identity, magic), MAGIC);
    put(identity + offset_of!(Identity, version), u64::from(LAYOUT_VERSION) | u64::from(geometry.align) << 32);
    put(identity + offset_of!(Identity, instance), geometry.instance);
    put(identity + offset_of!(Identity, max_capacity), geometry.max_capacity);
    put(identity + offset_of!(Identity, max_message), geometry.max_message);
    put(identity + offset_of!(Identity, flags), flags_of(geometry));
    put(identity + offset_of!(Identity, owner_pid), u64::from(owner.pid));
    put(identity + offset_of!(Identity, owner_start), owner.start);
    put(identity + offset_of!(Identity, boot_id), owner.boot_id[0]);
    put(identity + offset_of!(Identity, boot_id) + 8, owner.boot_id[1]);
    put(identity + offset_of!(Identity, home), owner.home);
    put(identity + offset_of!(Identity, lineage), geometry.lineage);
    put(identity + offset_of!(Identity, previous), beginning.previous);
    put(identity + offset_of!(Identity, began_pos), beginning.pos);
    put(identity + offset_of!(Identity, began_seq), beginning.seq);
    put(identity + offset_of!(Identity, features), geometry.features);
    let base = first_header(u64::from(geometry.align));
    let floors = [offset_of!(SegmentHeader, floor), offset_of!(SegmentHeader, next_floor)];
    let first = Place { pos: beginning.pos, off: base, seq: beginning.seq, bytes: beginning.bytes };
    for place in floors.into_iter().chain([offset_of!(SegmentHeader, mark)]) {
        let copy = place + offset_of!(Published, copies);
        put(copy + offset_of!(PlaceCell, pos), first.pos);
        put(copy + offset_of!(PlaceCell, off), first.off);
        put(copy + offset_of!(PlaceCell, seq), first.seq);
        put(copy + offset_of!(PlaceCell, bytes), first.bytes);
        put(place + offset_of!(Published, checks), first.check());
    }
    let counters = offset_of!(SegmentHeader, counters);
    put(counters + offset_of!(Counters, capacity), capacity);
    put(counters + offset_of!(Counters, dropped), beginning.dropped);
    put(counters + offset_of!(Counters, overwritten), beginning.overwritten);
    put(counters + offset_of!(Counters, resizes), beginning.resizes);
    put(counters + offset_of!(Counters, evicted), beginning.evicted);
    let written = pwrite(fd, &page, 0).map_err(|e| SystemError::new("write the segment's header", e))?;
    if written != page.len() {
        let short = std::io::Error::from(std::io::ErrorKind::WriteZero);
        return Err(SystemError::new(format!("write the segment's header: {written} of {} bytes", page.len()), short));
    }
    Ok(())
}

/// Writes a new owner into the header of a segment whose owner no longer exists.
///
/// # Errors
/// If the header cannot be written.
pub fn own_segment(fd: BorrowedFd<'_>, owner: Owner) -> Result<()> {
    const { assert!(offset_of!(Identity, owner_start) == offset_of!(Identity, owner_pid) + 8) };
    let words = [u64::from(owner.pid), owner.start];
    put_words(fd, offset_of!(SegmentHeader, identity) + offset_of!(Identity, owner_pid), &words)
}

/// A segment, mapped once at its largest size. Growing and shrinking never move the mapping.
#[derive(Debug)]
pub(super) struct Segment {
    /// The first byte of the mapping.
    start: NonNull<u8>,
    max_capacity: u64,
    /// Bytes of data in the file when it was mapped.
    length: u64,
    map: Mapping,
}

// SAFETY: the pointer is into the mapping that this value owns. The mapping belongs to the process, not to a thread,
// and `&Segment` gives access only to atomics and raw pointers.
unsafe impl Send for Segment {}

impl Segment {
    /// Maps a segment for reading, and compares its header with the geometry that the daemon announced.
    pub(super) fn open(fd: BorrowedFd<'_>, geometry: &Geometry) -> Result<Segment, ReaderError> {
        let channel = geometry.channel.as_str();
        if let Some(reason) = geometry.misfit() {
            return Err(ReaderError::OtherLayout { channel: channel.to_owned(), reason });
        }
        Self::map(fd, geometry, false, |reason| ReaderError::Corrupt { channel: channel.to_owned(), reason })
    }

    fn map<E: From<SystemError>>(
        fd: BorrowedFd<'_>,
        geometry: &Geometry,
        writable: bool,
        corrupt: impl Fn(String) -> E,
    ) -> Result<Segment, E> {
        let length = reserve::length(fd)?;
        if length <= DATA_OFFSET {
            return Err(corrupt(format!("{length} bytes are too short for a header and data")));
        }
        let align = u64::from(geometry.align);
        if !is_alignment(align) {
            return Err(corrupt(format!("alignment {align} is not a power of two from {LEAST_ALIGN} to {MOST_ALIGN}")));
        }
        let max = geometry.max_capacity;
        let total = max.checked_add(DATA_OFFSET).and_then(|n| usize::try_from(n).ok());
        let Some(total) = total.filter(|_| max.is_multiple_of(4096) && max > 0 && max <= MAX_CAPACITY) else {
            return Err(corrupt(format!("maximum capacity {max} cannot be mapped")));
        };
        let largest = geometry.strides().largest_message(max);
        if geometry.max_message > largest {
            let asked = geometry.max_message;
            return Err(corrupt(format!("messages of {asked} bytes do not fit into {max}, the largest has {largest}")));
        }
        let map = if writable { Mapping::read_write(fd, total)? } else { Mapping::read_only(fd, total)? };
        map.advise_huge();
        let start = NonNull::new(map.ptr()).ok_or_else(|| corrupt("mapped at address 0".to_owned()))?;
        let data = (length - DATA_OFFSET).min(max);
        let segment = Segment { start, max_capacity: geometry.max_capacity, length: data, map };
        let id = &segment.header().identity;
        let expect = [
            ("magic", id.magic.load(Ordering::Relaxed), MAGIC),
            ("layout", u64::from(id.version.load(Ordering::Relaxed)), u64::from(geometry.layout)),
            ("features", id.features.load(Ordering::Relaxed), geometry.features),
            ("alignment", u64::from(id.align.load(Ordering::Relaxed)), align),
            ("instance", id.instance.load(Ordering::Relaxed), geometry.instance),
            ("maximum capacity", id.max_capacity.load(Ordering::Relaxed), geometry.max_capacity),
            ("largest message", id.max_message.load(Ordering::Relaxed), geometry.max_message),
            ("flags", id.flags.load(Ordering::Relaxed), flags_of(geometry)),
        ];
        for (what, found, expected) in expect {
            if found != expected {
                return Err(corrupt(format!("{what} is {found:#x}, the daemon said {expected:#x}")));
            }
        }
        if geometry.prefault {
            segment.enter(segment.header().counters.capacity.load(Ordering::Relaxed), writable);
        }
        Ok(segment)
    }

    /// Enters the memory of this capacity into the page table. Above it, the file may have been left its length when its memory was
    /// given back, and entering that would take the memory again.
    pub(super) fn enter(&self, capacity: u64, writable: bool) {
        let bytes = DATA_OFFSET + capacity.min(self.length);
        self.map.populate(usize::try_from(bytes).unwrap_or(usize::MAX), writable);
    }

    /// Bytes of data that are mapped.
    #[inline(always)]
    pub(super) fn max_capacity(&self) -> u64 {
        self.max_capacity
    }

    /// Bytes of data in the file when it was mapped.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The first page.
    #[inline(always)]
    pub(super) fn header(&self) -> &SegmentHeader {
        // SAFETY: the mapping is page-aligned, and `map` checked that the file is longer than the header. The structure
        // has only atomics, which are valid for any bytes, also while other processes change them.
        unsafe { self.start.cast().as_ref() }
    }

    /// Prefetches the cache line at this offset, if there is one, so that a read soon after takes less time.
    #[inline(always)]
    pub(super) fn prefetch(&self, off: u64) {
        prefetch(self.start.as_ptr().wrapping_add((DATA_OFFSET + off) as usize));
    }

    /// The address of a payload.
    ///
    /// # Safety
    /// `off` is inside the data area or at its end.
    #[inline(always)]
    pub(super) unsafe fn payload_unchecked(&self, off: u64) -> *mut u8 {
        debug_assert!(off <= self.max_capacity);
        // SAFETY: the mapping is as long as DATA_OFFSET and the data area together; the caller promises the rest.
        unsafe { self.start.as_ptr().add((DATA_OFFSET + off) as usize) }
    }
}

/// The header words of a segment, without a check of each offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unchecked<'a>(&'a Segment);

impl Segment {
    /// The header words, for offsets that are checked elsewhere.
    ///
    /// # Safety
    /// Every offset that is looked up is a multiple of 8 inside the data area.
    #[inline(always)]
    pub(super) unsafe fn unchecked(&self) -> Unchecked<'_> {
        Unchecked(self)
    }
}

impl Words for Unchecked<'_> {
    #[inline(always)]
    fn word(&self, off: u64) -> &AtomicU64 {
        debug_assert!(off.is_multiple_of(8) && off < self.0.max_capacity);
        // SAFETY: the caller of `unchecked` promised that the offset is valid; otherwise as in the impl for `Segment`.
        unsafe { &*self.0.start.as_ptr().add((DATA_OFFSET + off) as usize).cast() }
    }
}

impl Words for Segment {
    #[inline(always)]
    fn word(&self, off: u64) -> &AtomicU64 {
        // Offsets are multiples of 8. The mask costs less than a check, and the proof below then depends on nothing
        // else.
        let off = off & !7;
        assert!(off < self.max_capacity, "header outside the data area");
        // SAFETY: the address is 8-aligned, because the offset and the start of the mapping are. It is inside the data
        // area, whose length is a multiple of 8. Nothing is stored through it if the mapping is read-only: only
        // `Writer` calls `clear`, `stage` and `release`. The loads in `look` are allowed on read-only memory.
        unsafe { &*self.start.as_ptr().add((DATA_OFFSET + off) as usize).cast() }
    }
}

/// The writer's segment, mapped for reading and writing.
#[derive(Debug)]
pub(super) struct WritableSegment(Segment);

impl Deref for WritableSegment {
    type Target = Segment;

    #[inline(always)]
    fn deref(&self) -> &Segment {
        &self.0
    }
}

impl Words for WritableSegment {
    #[inline(always)]
    fn word(&self, off: u64) -> &AtomicU64 {
        self.0.word(off)
    }
}

impl WritableSegment {
    /// Maps a segment for reading and writing; see [`Segment::open`].
    pub(super) fn open(fd: BorrowedFd<'_>, geometry: &Geometry) -> Result<WritableSegment, WriterError> {
        let channel = geometry.channel.as_str();
        if let Some(reason) = geometry.misfit() {
            return Err(WriterError::OtherLayout { channel: channel.to_owned(), reason });
        }
        Segment::map(fd, geometry, true, |reason| WriterError::Corrupt { channel: channel.to_owned(), reason })
            .map(WritableSegment)
    }

    /// Copies a payload into the segment.
    ///
    /// # Safety
    /// The caller is the only writer, and `off` is a multiple of 8. The plan has given the caller the bytes of the
    /// message from `off` on, rounded up to a multiple of 8: they lie in the data area, and no committed record lies in
    /// them.
    #[inline(always)]
    pub(super) unsafe fn fill(&mut self, off: u64, message: &[u8]) {
        debug_assert!(off.is_multiple_of(8) && off + message.len() as u64 <= self.max_capacity);
        // SAFETY: `off` is inside the data area, as the caller promises.
        let to = unsafe { self.payload_unchecked(off) };
        if message.len() <= SMALL {
            // SAFETY: the bytes, including the whole last word, are inside the mapping, which is writable. The address
            // is a multiple of 8, because the offset and the start of the mapping are.
            unsafe { copy::words(message, to.cast()) };
        } else {
            // SAFETY: the bytes are inside the mapping, as above, and writable. Source and destination do not overlap:
            // `&mut self` means that nothing else holds a reference into this mapping, so `message` lies elsewhere.
            unsafe { copy::bytes(message.as_ptr(), to, message.len()) };
        }
    }

    /// The payload bytes that the writer may fill.
    ///
    /// # Safety
    /// The caller is the only writer. The bytes lie in the data area, and the plan has given them to the caller: no
    /// committed record lies in them.
    #[inline(always)]
    pub(super) unsafe fn payload_mut(&mut self, off: u64, len: usize) -> &mut [u8] {
        debug_assert!(off + len as u64 <= self.max_capacity);
        // SAFETY: the bytes are inside the mapping, as the caller promises, and have memory up to the capacity, because
        // the daemon reserves memory before it announces a capacity. Other processes map the segment read-only, and the
        // caller is the only writer.
        unsafe { std::slice::from_raw_parts_mut(self.payload_unchecked(off), len) }
    }
}
