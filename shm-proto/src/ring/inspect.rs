//! Reading the header of a segment without mapping it.
//!
//! A program that was lent the writer role may truncate the file, and a process that accesses mapped memory behind the end of
//! the file dies of SIGBUS. `pread` fails instead, so the daemon looks at lent channels only this way.
//!
//! Nothing says in which order one `pread` copies, neither on x86-64 (`rep movsb`) nor on 64-bit Arm, or that it copies a word
//! in one piece. So values that must be seen in order are read by several calls with fences between them, and a version that
//! was read in pieces differs from the version that is read next. On the way to the tail, a read may find bytes from before a
//! header was cleared behind a header that is newer. Such bytes are ignored unless they carry the right number. A
//! [walk](super::chain) that must be reliable reads such a place again before it calls the place broken.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{Ordering, fence};

use nix::sys::uio::pread;

use super::chain::implausible;
use super::layout::{Counters, DATA_OFFSET, Identity, LAYOUT_VERSION, MAGIC, MARK_EVERY, Notes, SegmentHeader};
use super::published::Place;
use super::record::{HEADER, Header, Kind, LEAST_ALIGN, Strides, TIME, is_alignment};
use super::segment::{Owner, flags_of};
use super::segment_file::{At, published, read_exact, word, word_at};
use crate::error::Result;
use crate::ring::geometry::Geometry;

/// A segment at one moment. Each figure is correct for itself; two figures may be a few messages apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The magic number and layout version are this library's.
    pub is_segment: bool,
    /// The layout's version; 0 without the magic number.
    pub version: u64,
    /// The segment's random number.
    pub instance: u64,
    /// The process that made the segment.
    pub owner: Owner,
    /// See [`Identity::lineage`].
    pub lineage: u64,
    /// See [`Identity::previous`].
    pub previous: u64,
    /// Where the chain of records in this segment begins: position and number of the first.
    pub began: (u64, u64),
    /// Largest capacity in bytes.
    pub max_capacity: u64,
    /// Largest message in bytes.
    pub max_message: u64,
    /// Alignment of payloads in bytes.
    pub align: u64,
    /// See [`Identity::flags`].
    pub flags: u64,
    /// See [`Identity::features`].
    pub features: u64,
    /// The place after the newest record.
    pub tail: Place,
    /// The oldest whole record.
    pub floor: Place,
    /// Capacity in use, in bytes.
    pub capacity: u64,
    /// Messages dropped because the ring was full.
    pub dropped: u64,
    /// Messages overwritten before every attached reader had read them.
    pub overwritten: u64,
    /// Changes of capacity that took effect.
    pub resizes: u64,
    /// Readers evicted by the writer.
    pub evicted: u64,
    /// A smaller capacity that waits for the readers, 0 for none.
    pub pending: u64,
    /// The writer's process number, 0 for none.
    pub writer_pid: u64,
    /// `CLOCK_MONOTONIC` nanoseconds when the writer was last at work.
    pub writer_heartbeat: u64,
    /// Attached readers that may stand in the segment. The daemon notes them for the daemon that comes after it.
    pub readers: u64,
}

const BYTES: usize = offset_of!(SegmentHeader, notes) + offset_of!(Notes, pages);
/// The largest number of attempts to walk to the tail: a fast writer may overwrite the records on the way.
const MOST_WALKS: u32 = 4;
/// Bytes of the data area to read at a time on the way to the tail: at first, because often nothing follows, and then.
const LOOKS: [usize; 2] = [512, 32 << 10];
/// The largest number of such reads: the tail of a correct writer is closer.
const MOST_LOOKS: u32 = 16;

impl Snapshot {
    /// Reads the header of the segment behind `fd`. The published places are whole, also while a writer works.
    ///
    /// # Errors
    /// If the file cannot be read or is shorter than a header. If the writer replaced a place during every one of many reads,
    /// which a correct writer never does, the source's kind is [`ResourceBusy`](std::io::ErrorKind::ResourceBusy).
    pub fn read(fd: BorrowedFd<'_>) -> Result<Snapshot> {
        let mut page = [0u8; BYTES];
        read_exact(fd, &mut page, 0)?;
        let mut shot = Self::parse(&page);
        if shot.is_segment {
            (shot.tail, shot.floor) = ends(fd, strides_of(&page))?;
        }
        Ok(shot)
    }

    /// The same without the places, which a working writer may replace faster than they can be read.
    ///
    /// # Errors
    /// If the file cannot be read or is shorter than a header.
    pub fn without_places(fd: BorrowedFd<'_>) -> Result<Snapshot> {
        let mut page = [0u8; BYTES];
        read_exact(fd, &mut page, 0)?;
        Ok(Self::parse(&page))
    }

    /// What is wrong with the header of a segment that should be as `geometry` says, in a file with `length` bytes of data.
    #[must_use]
    pub fn fault(&self, geometry: &Geometry, length: u64) -> Option<String> {
        if !self.is_segment {
            return Some("the magic number or the layout's version is another".to_owned());
        }
        let expected = [
            ("instance", self.instance, geometry.instance),
            ("maximum capacity", self.max_capacity, geometry.max_capacity),
            ("largest message", self.max_message, geometry.max_message),
            ("alignment", self.align, u64::from(geometry.align)),
            ("flags", self.flags, flags_of(geometry)),
            ("features", self.features, geometry.features),
        ];
        if let Some((what, is, expected)) = expected.into_iter().find(|(_, is, expected)| is != expected) {
            return Some(format!("{what} is {is:#x}, it was {expected:#x}"));
        }
        if self.capacity > length.min(geometry.max_capacity) {
            let capacity = self.capacity;
            return Some(format!("capacity is {capacity}, there are {length} bytes of data"));
        }
        self.misplaced(geometry, length)
    }

    /// What is wrong with the places of the segment.
    fn misplaced(&self, geometry: &Geometry, length: u64) -> Option<String> {
        if (self.floor, self.tail) == <(Place, Place)>::default() {
            // They were not read.
            return None;
        }
        let place = |what: &str, place| implausible(place, geometry, length).map(|why| format!("{what}: {why}"));
        place("the floor", self.floor).or_else(|| place("the mark", self.tail)).or_else(|| self.gap(geometry))
    }

    /// Whether floor and tail cannot belong to one chain.
    fn gap(&self, geometry: &Geometry) -> Option<String> {
        let (floor, tail) = (self.floor, self.tail);
        let bytes = tail.pos.checked_sub(floor.pos).filter(|bytes| *bytes <= geometry.max_capacity);
        let messages = tail.seq.checked_sub(floor.seq);
        let fits = bytes.zip(messages).is_some_and(|(bytes, messages)| messages <= bytes / LEAST_ALIGN);
        (!fits).then(|| {
            let place = |place: Place| format!("position {}, message {}", place.pos, place.seq);
            format!("no chain leads from the floor ({}) to the mark ({})", place(floor), place(tail))
        })
    }

    fn parse(page: &[u8; BYTES]) -> Snapshot {
        let word = |at: usize| word(page, at);
        let id = offset_of!(SegmentHeader, identity);
        let counters = offset_of!(SegmentHeader, counters);
        let low = |word: u64| word & u64::from(u32::MAX);
        let is_ours = word(id + offset_of!(Identity, magic)) == MAGIC;
        let version = if is_ours { low(word(id + offset_of!(Identity, version))) } else { 0 };
        Snapshot {
            is_segment: version == u64::from(LAYOUT_VERSION),
            version,
            instance: word(id + offset_of!(Identity, instance)),
            owner: Owner {
                pid: low(word(id + offset_of!(Identity, owner_pid))) as u32,
                start: word(id + offset_of!(Identity, owner_start)),
                boot_id: [word(id + offset_of!(Identity, boot_id)), word(id + offset_of!(Identity, boot_id) + 8)],
                home: word(id + offset_of!(Identity, home)),
            },
            lineage: word(id + offset_of!(Identity, lineage)),
            previous: word(id + offset_of!(Identity, previous)),
            began: (word(id + offset_of!(Identity, began_pos)), word(id + offset_of!(Identity, began_seq))),
            max_capacity: word(id + offset_of!(Identity, max_capacity)),
            max_message: word(id + offset_of!(Identity, max_message)),
            align: word(id + offset_of!(Identity, version)) >> 32,
            flags: word(id + offset_of!(Identity, flags)),
            features: word(id + offset_of!(Identity, features)),
            tail: Place::default(),
            floor: Place::default(),
            capacity: word(counters + offset_of!(Counters, capacity)),
            dropped: word(counters + offset_of!(Counters, dropped)),
            overwritten: word(counters + offset_of!(Counters, overwritten)),
            resizes: word(counters + offset_of!(Counters, resizes)),
            evicted: word(counters + offset_of!(Counters, evicted)),
            pending: word(counters + offset_of!(Counters, pending)),
            writer_pid: word(counters + offset_of!(Counters, writer_pid)),
            writer_heartbeat: word(counters + offset_of!(Counters, writer_heartbeat)),
            readers: word(offset_of!(SegmentHeader, notes) + offset_of!(Notes, readers)),
        }
    }
}

/// When message `seq` was published, whose header is at offset `off` according to its reader: `CLOCK_MONOTONIC` nanoseconds. `None` if
/// another record is there, or none yet. For segments with publish times.
#[must_use]
pub fn publish_time(fd: BorrowedFd<'_>, off: u64, seq: u64) -> Option<u64> {
    let from = i64::try_from(DATA_OFFSET.checked_add(off)?.checked_sub(TIME)?).ok()?;
    let mut both = [0u8; (TIME + HEADER) as usize];
    let got = pread(fd, &mut both, from).ok()?;
    let header = Header(word_at(&both[..got], TIME as usize)?);
    let is_message = matches!(header.kind(), Kind::Data { .. }) && header.is_for(seq);
    is_message.then(|| word(&both, 0))
}

/// The tail and the floor, each as it was at one moment. The tail is never before the floor.
fn ends(fd: BorrowedFd<'_>, strides: Option<Strides>) -> Result<(Place, Place)> {
    let mut from = published(fd, At::Mark)?;
    for _ in 0..MOST_WALKS {
        let tail = walk(fd, from, strides);
        // Acquire pairs with the Release fence that ends `Published::store` of the floor: if the walk has seen a byte that
        // overwrote a record, the floor that is read below has passed that record.
        fence(Ordering::Acquire);
        let floor = published(fd, At::Floor)?;
        // The writer moves the floor before it overwrites records. If the floor has not passed the beginning of the walk, every
        // record on the walk was still in place.
        if floor.pos <= from.pos {
            return Ok((tail, floor));
        }
        let mark = published(fd, At::Mark)?;
        from = if mark.pos >= floor.pos { mark } else { floor };
    }
    // The writer has lapped every walk. The published place where the next walk would begin was the tail a moment ago.
    let floor = published(fd, At::Floor)?;
    Ok((if from.pos >= floor.pos { from } else { floor }, floor))
}

/// How many bytes records take, according to the identity. `None` for an impossible alignment.
fn strides_of(page: &[u8; BYTES]) -> Option<Strides> {
    let identity = offset_of!(SegmentHeader, identity);
    let align = word(page, identity + offset_of!(Identity, version)) >> 32;
    let features = word(page, identity + offset_of!(Identity, features));
    is_alignment(align).then(|| Strides::new(align, features))
}

/// Follows the chain from the mark to the tail, or as far as it is valid while a writer works.
fn walk(fd: BorrowedFd<'_>, mark: Place, strides: Option<Strides>) -> Place {
    let mut at = mark;
    let Some(strides) = strides else { return at };
    let mut buffer = [0u8; LOOKS[1]];
    let mut look = LOOKS[0];
    for _ in 0..MOST_LOOKS {
        let begin = at.off;
        let got = i64::try_from(DATA_OFFSET.saturating_add(begin))
            .ok()
            .and_then(|from| pread(fd, &mut buffer[..look], from).ok())
            .unwrap_or(0);
        let Some(seen) = hop(&buffer[..got], begin, at, strides) else { return at };
        at = seen;
        look = LOOKS[1];
        if at.pos.wrapping_sub(mark.pos) > MARK_EVERY {
            break;
        }
    }
    at
}

/// Passes the records whose headers are in `bytes`, which are from offset `begin` on. `None` if there is no header at the start.
fn hop(bytes: &[u8], begin: u64, mut at: Place, strides: Strides) -> Option<Place> {
    let mut moved = false;
    while let Some(ahead) = at.off.checked_sub(begin).and_then(|ahead| usize::try_from(ahead).ok())
        && ahead + HEADER as usize <= bytes.len()
    {
        let header = Header(word(bytes, ahead));
        if !header.is_for(at.seq) {
            break;
        }
        match header.kind() {
            Kind::Data { len } => {
                let stride = strides.of(len);
                at = Place {
                    pos: at.pos.wrapping_add(stride),
                    off: at.off.wrapping_add(stride),
                    seq: at.seq.wrapping_add(1),
                    bytes: at.bytes.wrapping_add(len),
                };
                moved = true;
            }
            Kind::Jump { target } => {
                at = Place { pos: at.pos.wrapping_add(HEADER), off: target, ..at };
                return Some(at);
            }
            Kind::Empty | Kind::Bad => break,
        }
    }
    moved.then_some(at)
}
