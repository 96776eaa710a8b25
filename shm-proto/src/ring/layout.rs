//! The bytes in shared memory, as `repr(C)` structures whose offsets are checked at compile time.
//!
//! # Segment: `[header page][data area]`
//!
//! | offset | bytes | field | written by |
//! |---|---|---|---|
//! | 0 | 128 | [`Identity`]: magic, version, instance, geometry, owner | daemon, once, before anyone else can open it |
//! | 128 | 128 | mark: [`Published`] place of a record near the tail | writer, every [`MARK_EVERY`] bytes or 64th of the capacity |
//! | 256 | 128 | floor: [`Published`] place of the oldest whole record | writer, before it overwrites |
//! | 384 | 128 | [`Counters`]: capacity, dropped, overwritten, resizes, writer's pid, start and heartbeat | writer |
//! | 512 | 128 | next floor: [`Published`] place that the floor is about to move to, otherwise equal to the floor | writer |
//! | 640 | 3,456 | [`Notes`]: readers that are attached, their pages and processes; a resize under way; a source's place; a handoff's; readers that the writer does not know | daemon |
//! | 4,096 | to the end | data area: records | writer |
//!
//! # Reader page: one sealed memfd per reader
//!
//! | offset | bytes | field | written by |
//! |---|---|---|---|
//! | 0 | 64 | cursor, sequence number, received, lost, heartbeat, process number and start | reader |
//! | 64 | 64 | waiting: 0 awake, 1 asleep on `wake`, 2 asleep on the bell | reader sets, writer clears |
//! | 128 | 8 | space wanted: the cursor that the writer sleeps for, 0 for none | writer |
//! | 136 | 8 | give at: the reader publishes its cursor when a record ends at or after this offset | reader; writer and daemon store 0 |
//! | 192 | 64 | control: [`control`] bits | writer and daemon |
//! | 256 | 32 | semaphore `wake`: writer to reader | both |
//! | 320 | 32 | semaphore `space`: reader to writer | both |
//! | 384 | 2,496 | [`ReaderTimes`]: the offset at the cursor, and delays of messages | reader |
//!
//! # Lease page: one sealed memfd for each time that the writer role is lent
//!
//! | offset | bytes | field | written by |
//! |---|---|---|---|
//! | 0 | 8 | generation: grows with every line sent to the writer; bit 63: the lease is over | daemon |
//! | 64 | 4 | waiting: the writer sleeps on `wake` | writer sets, daemon clears |
//! | 128 | 8 | pending: lines that the daemon holds back until the writer has taken the lines that were sent | daemon |
//! | 192 | 32 | semaphore `wake` | both |
//!
//! No process trusts bytes that another process may write: see [`Reader`](super::Reader) and [`Writer`](super::Writer).

use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::delays::ReaderTimes;
pub use super::published::{Place, PlaceCell, Published};
use super::record::PUBLISH_TIMES;
use crate::error::Result;
use crate::os::page::{PAGE_SIZE, PageLayout};
use crate::os::sem::{Semaphore, SemaphoreCell};

/// `SHMDRING`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SHMDRING");
/// The version of the layout. Peers can use each other's segments only if this version is the same: see
/// `Geometry::misfit`.
pub const LAYOUT_VERSION: u32 = 2;
/// The layout of peers that do not state a version.
pub const FIRST_LAYOUT: u32 = 1;
/// Bits of [`Identity::features`] that this library understands.
pub const KNOWN_FEATURES: u64 = PUBLISH_TIMES;
/// Bytes before the data area.
pub const DATA_OFFSET: u64 = 4096;
/// The mark is at most this many bytes, or one message, before the tail.
pub const MARK_EVERY: u64 = 64 << 10;
/// Bytes of a cache line.
pub const LINE: u64 = 64;
/// A reader's process number when it has left.
pub const PID_LEFT: u64 = u64::MAX;
/// The number of readers whose pages are noted. A reader that is not noted cannot prove that it was attached.
pub const NOTED: usize = 400;
/// Words of the note about the capacity.
pub const SIZE_WORDS: usize = 4;
/// Bits of a word in [`Notes::pages`] that hold the process number. Linux numbers no process higher.
pub const PID_BITS: u32 = 22;
/// Words of the note about a handoff.
pub const HANDOFF_WORDS: usize = 7;
/// Words of the note about a source's place.
pub const SOURCE_WORDS: usize = 8;
/// A cursor's value until the reader has chosen its start.
pub const CURSOR_JOINING: u64 = u64::MAX;

/// Facts that are fixed when the segment is created.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Identity {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`LAYOUT_VERSION`].
    pub version: AtomicU32,
    /// Alignment of payloads in bytes.
    pub align: AtomicU32,
    /// Random number of this segment.
    pub instance: AtomicU64,
    /// Largest capacity in bytes.
    pub max_capacity: AtomicU64,
    /// Largest message in bytes.
    pub max_message: AtomicU64,
    /// 0 block, 1 drop, 2 overwrite; bit 8 asymmetric barrier.
    pub flags: AtomicU64,
    /// The daemon that created the segment: its process number,
    pub owner_pid: AtomicU64,
    /// and that process's start, in clock ticks after boot.
    pub owner_start: AtomicU64,
    /// The kernel's boot id.
    pub boot_id: [AtomicU64; 2],
    /// Which daemon may adopt the segment: a number derived from the daemon's runtime directory.
    pub home: AtomicU64,
    /// The instance of the channel's first segment.
    pub lineage: AtomicU64,
    /// The instance of the channel's previous segment, 0 for none. That segment ended where this one begins:
    pub previous: AtomicU64,
    /// the position of the first record,
    pub began_pos: AtomicU64,
    /// and its number.
    pub began_seq: AtomicU64,
    /// Features of the records beyond this layout, as bits. A peer that does not know one of the bits cannot use the
    /// segment.
    pub features: AtomicU64,
}

/// What the writer counts.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Counters {
    /// Capacity in use, in bytes. The writer places no record that ends above it.
    pub capacity: AtomicU64,
    /// Messages dropped because the ring was full.
    pub dropped: AtomicU64,
    /// Messages overwritten before every attached reader had read them.
    pub overwritten: AtomicU64,
    /// Changes of capacity that took effect.
    pub resizes: AtomicU64,
    /// The writer's process number, 0 for none: see `holder`.
    pub writer_pid: AtomicU64,
    /// `CLOCK_MONOTONIC` nanoseconds when the writer last updated its heartbeat.
    pub writer_heartbeat: AtomicU64,
    /// Readers evicted by the writer.
    pub evicted: AtomicU64,
    /// A smaller capacity that waits for readers, 0 for none.
    pub pending: AtomicU64,
    /// The start of the writer's process, in clock ticks after boot. Together with the process number, it shows whether
    /// the writer is alive.
    pub writer_start: AtomicU64,
    /// Zero.
    pub reserved: [AtomicU64; 7],
}

/// In [`Notes::unnamed`]: the role of whoever writes to this segment is over.
pub const LEFT: u64 = u64::MAX;

/// What the daemon notes for the next daemon, and for a writer that has not found it, with `pwrite`.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Notes {
    /// Number of attached readers that may stand in this segment.
    pub readers: AtomicU64,
    /// When the readers were noted, in clock ticks after boot: each of their processes had started by then.
    pub noted_at: AtomicU64,
    /// The PID namespace in which the process numbers are valid, by its inode number; 0 if it is not known.
    pub pid_namespace: AtomicU64,
    /// For each reader, the inode number of its page, and below that, in [`PID_BITS`], the number of its process, or 0 if
    /// that is not known; 0 for no reader. No process can create a page with an inode number of its choice, so a reader
    /// that shows a page of this list was attached.
    pub pages: [AtomicU64; NOTED],
    /// The change of the capacity that is in progress: see [`SizeNote`](super::SizeNote).
    pub size: [AtomicU64; SIZE_WORDS],
    /// How far a source has read its file: see [`SourceNote`](super::SourceNote).
    pub source: [AtomicU64; SOURCE_WORDS],
    /// How far a handoff is with the messages in this segment: see [`HandoffNote`](super::HandoffNote).
    pub handoff: [AtomicU64; HANDOFF_WORDS],
    /// Readers that were attached while the writer had not found this daemon: the writer does not know them, and gives up
    /// no space until it has been told. 0 from the moment when a writer begins or goes on.
    /// [`LEFT`]: the channel goes on in another segment.
    pub unnamed: AtomicU64,
    /// Zero.
    pub reserved: [AtomicU64; 9],
}

/// The segment's first page.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct SegmentHeader {
    /// Who created the segment and what it is.
    pub identity: Identity,
    /// A record near the tail. The mark is at most [`MARK_EVERY`], a 64th of the capacity (but at least 4 KiB) or one
    /// message before the tail. The header does not state the tail itself: to store it with every message would make a
    /// small message take a tenth longer. A process that needs the tail walks there from the mark.
    pub mark: Published,
    /// The oldest whole record.
    pub floor: Published,
    /// What the writer counts.
    pub counters: Counters,
    /// The place that the floor is about to move to; otherwise equal to [`floor`](Self::floor). A reader that attaches
    /// starts here or later: see `floor::advance`.
    pub next_floor: Published,
    /// What the daemon notes for the next daemon.
    pub notes: Notes,
}

/// A cache line that only the reader writes.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ReaderLine {
    /// The reader has read everything before this position; [`CURSOR_JOINING`] until the reader has chosen its start.
    pub cursor: AtomicU64,
    /// Number of the message at the cursor. Only `stat` uses it.
    pub seq: AtomicU64,
    /// Messages read.
    pub received: AtomicU64,
    /// Messages lost to overwriting.
    pub lost: AtomicU64,
    /// `CLOCK_MONOTONIC` nanoseconds when the reader last updated its heartbeat.
    pub heartbeat: AtomicU64,
    /// The reader's process: its number, or [`PID_LEFT`] once the reader has left,
    pub pid: AtomicU64,
    /// and its start in clock ticks after boot. A writer without a daemon uses both to find out which readers are gone.
    pub start: AtomicU64,
    /// How the reader waits, for `stat`: see [`WaitStrategy::of_word`](super::WaitStrategy::of_word).
    pub wait: AtomicU64,
}

/// A flag or a number on its own cache line.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Lone<T> {
    /// The value.
    pub value: T,
}

/// When a reader publishes its cursor.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SpaceWanted {
    /// The cursor at which a sleeping writer can continue, 0 for none.
    pub value: AtomicU64,
    /// The reader publishes its cursor when a record ends at or after this offset, and then sets the offset an eighth
    /// of the capacity ahead. The writer and the daemon store 0 to make the reader publish its cursor after its current
    /// message: see [`ask_for_cursor`](super::wake::ask_for_cursor).
    pub give_at: AtomicU64,
}

/// A reader's page.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct ReaderPage {
    /// Cursor and counters.
    pub line: ReaderLine,
    /// See [`waiting`].
    pub waiting: Lone<AtomicU32>,
    /// See [`SpaceWanted`].
    pub space_wanted: SpaceWanted,
    /// See [`control`].
    pub control: Lone<AtomicU32>,
    /// Posted by the writer when there is something to read.
    pub wake: SemaphoreCell,
    /// Posted by the reader when it has passed `space_wanted`.
    pub space: SemaphoreCell,
    /// See [`ReaderTimes`].
    pub times: ReaderTimes,
}

/// The page between the daemon and the writer.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct LeasePage {
    /// Grows with every line that the daemon sends to the writer; [`OVER`] is its highest bit.
    pub generation: Lone<AtomicU64>,
    /// 1 while the writer sleeps on `wake`.
    pub waiting: Lone<AtomicU32>,
    /// Number of lines that the daemon holds back, because the link is full until
    /// [`ToDaemon::Taken`](super::link::ToDaemon::Taken) arrives. While this is not 0, the writer may not know every
    /// reader, so it gives up no space.
    pub pending: Lone<AtomicU64>,
    /// Posted by the daemon with every line that it sends.
    pub wake: SemaphoreCell,
}

/// Bit of [`LeasePage::generation`]: the lease has ended. Another process may hold the role, so this writer must not
/// write any more.
///
/// The daemon sets the bit before it closes the connection. If the connection closes and the bit is not set, the daemon
/// has died.
pub const OVER: u64 = 1 << 63;

/// Values of [`ReaderPage::waiting`].
pub mod waiting {
    /// Not asleep.
    pub const NO: u32 = 0;
    /// Asleep on the page's semaphore.
    pub const SEMAPHORE: u32 = 1;
    /// Asleep in a poll loop, on the bell.
    pub const BELL: u32 = 2;
}

/// Bits of [`ReaderPage::control`].
pub mod control {
    /// A writer knows this reader, and overwrites nothing that the reader still needs.
    pub const REGISTERED: u32 = 1;
    /// Evicted: the writer may overwrite what this reader is reading.
    pub const EVICTED: u32 = 2;
    /// The channel is closing: the reader reads the rest of the messages, then stops.
    pub const CLOSING: u32 = 4;
    /// Adding this counts one more move of the channel to a new segment. The count uses the bits from this one on.
    pub const MOVE: u32 = 1 << 8;
    /// The bits that hold the number of moves since the reader attached.
    pub const MOVES: u32 = !(MOVE - 1);
}

/// Bits of [`Identity::flags`].
pub mod flags {
    // Bits 0 and 1 hold the `on_full` policy.
    /// The sleeper pays for the barrier.
    pub const ASYMMETRIC: u64 = 1 << 8;
}

const _: () = {
    assert!(size_of::<SegmentHeader>() == DATA_OFFSET as usize);
    assert!(offset_of!(SegmentHeader, identity) == 0);
    assert!(offset_of!(SegmentHeader, mark) == 128);
    assert!(offset_of!(SegmentHeader, floor) == 256);
    assert!(offset_of!(SegmentHeader, counters) == 384);
    assert!(offset_of!(SegmentHeader, next_floor) == 512);
    assert!(offset_of!(Identity, instance) == 16);
    assert!(offset_of!(Identity, max_capacity) == 24);
    assert!(offset_of!(Identity, flags) == 40);
    assert!(offset_of!(Identity, boot_id) == 64);
    assert!(offset_of!(Identity, home) == 80);
    assert!(offset_of!(Identity, began_seq) == 112);
    assert!(offset_of!(Identity, features) == 120);
    assert!(size_of::<Identity>() == 128);
    assert!(offset_of!(SegmentHeader, notes) == 640);
    assert!(offset_of!(Published, checks) == 48);
    assert!(offset_of!(Published, copies) == 64);
    assert!(size_of::<PlaceCell>() == 32);
    assert!(size_of::<Counters>() == 128);
    assert!(size_of::<ReaderPage>() == PAGE_SIZE);
    assert!(offset_of!(ReaderPage, waiting) == 64);
    assert!(offset_of!(ReaderPage, space_wanted) == 128);
    assert!(offset_of!(SpaceWanted, give_at) == 8);
    assert!(offset_of!(ReaderPage, control) == 192);
    assert!(offset_of!(ReaderPage, wake) == 256);
    assert!(offset_of!(ReaderPage, space) == 320);
    assert!(offset_of!(ReaderPage, times) == 384);
    assert!(offset_of!(ReaderTimes, delays) == 64);
    assert!(size_of::<LeasePage>() == PAGE_SIZE);
    assert!(offset_of!(LeasePage, waiting) == 64);
    assert!(offset_of!(LeasePage, pending) == 128);
    assert!(offset_of!(LeasePage, wake) == 192);
};

// SAFETY: the size is asserted above, and every field is an atomic or an array of atomics.
#[allow(unsafe_code)]
unsafe impl PageLayout for ReaderPage {
    fn prepare(&self) -> Result<()> {
        self.line.cursor.store(CURSOR_JOINING, Ordering::Relaxed);
        Semaphore::new(&self.wake).init()?;
        Semaphore::new(&self.space).init()
    }
}

// SAFETY: as for `ReaderPage`.
#[allow(unsafe_code)]
unsafe impl PageLayout for LeasePage {
    fn prepare(&self) -> Result<()> {
        Semaphore::new(&self.wake).init()
    }
}

/// The size of a cache line, and of two, because some processors fetch lines in pairs.
const ONE: usize = LINE as usize;
const PAIR: usize = 2 * ONE;

/// Whether a field shares no cache line with other fields: it begins and ends at a line boundary.
const fn is_alone(offset: usize, size: usize, line: usize) -> bool {
    offset.is_multiple_of(line) && size.is_multiple_of(line) && size > 0
}

// No false sharing: what different parties write lies on different cache lines, so that no party loses a line to
// another party that accesses only a neighbouring field. Readers look at the segment's header while the writer writes
// records, so fields there are aligned to pairs of lines. A few Arm processors have lines of 128 bytes. There,
// neighbours in a reader page or a lease page share a line, which is slower but not wrong.
const _: () = {
    assert!(is_alone(offset_of!(SegmentHeader, identity), size_of::<Identity>(), PAIR));
    assert!(is_alone(offset_of!(SegmentHeader, mark), size_of::<Published>(), PAIR));
    assert!(is_alone(offset_of!(SegmentHeader, floor), size_of::<Published>(), PAIR));
    assert!(is_alone(offset_of!(SegmentHeader, counters), size_of::<Counters>(), PAIR));
    assert!(is_alone(offset_of!(SegmentHeader, next_floor), size_of::<Published>(), PAIR));
    assert!((DATA_OFFSET as usize).is_multiple_of(PAIR));
    // The reader's line; the flag that both sides of a sleep change; the writer's requests, which the reader loads
    // after every message and which seldom change; what the writer and the daemon say; the semaphores.
    assert!(is_alone(offset_of!(ReaderPage, line), size_of::<ReaderLine>(), ONE));
    assert!(is_alone(offset_of!(ReaderPage, waiting), size_of::<Lone<AtomicU32>>(), ONE));
    assert!(is_alone(offset_of!(ReaderPage, space_wanted), size_of::<SpaceWanted>(), ONE));
    assert!(is_alone(offset_of!(ReaderPage, control), size_of::<Lone<AtomicU32>>(), ONE));
    assert!(is_alone(offset_of!(ReaderPage, wake), size_of::<SemaphoreCell>(), ONE));
    assert!(is_alone(offset_of!(ReaderPage, space), size_of::<SemaphoreCell>(), ONE));
    // The daemon's generation, which the writer loads before every message; the writer's flag; the number of lines that
    // are held back; the semaphore.
    assert!(is_alone(offset_of!(LeasePage, generation), size_of::<Lone<AtomicU64>>(), ONE));
    assert!(is_alone(offset_of!(LeasePage, waiting), size_of::<Lone<AtomicU32>>(), ONE));
    assert!(is_alone(offset_of!(LeasePage, pending), size_of::<Lone<AtomicU64>>(), ONE));
    assert!(is_alone(offset_of!(LeasePage, wake), size_of::<SemaphoreCell>(), ONE));
};
