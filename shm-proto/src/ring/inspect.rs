//! What a segment's header says, read without mapping it.
//!
//! A program that was lent the writer role may cut the file short, and whoever touches mapped memory past its end dies of
//! SIGBUS. `pread` fails instead, so the daemon looks at lent channels this way only.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use nix::sys::uio::pread;

use super::layout::{Counters, DATA_OFFSET, Identity, LAYOUT_VERSION, MAGIC, MARK_EVERY, SegmentHeader};
use super::published::{Place, PlaceCell, Published};
use super::record::{HEADER, Header, Kind, stride};
use super::segment::Owner;
use crate::error::{Error, Result};

/// A segment at one moment. Each figure is right by itself; two may be a few messages apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The magic number and layout version are this library's.
    pub is_segment: bool,
    /// The segment's random number.
    pub instance: u64,
    /// Who made it.
    pub owner: Owner,
    /// Largest capacity in bytes.
    pub max_capacity: u64,
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
}

/// A header is read again so many times at most: a hostile writer could change it for ever.
const MOST_READS: u32 = 8;
const BYTES_OF_VERSIONS: usize = offset_of!(SegmentHeader, floor) + offset_of!(Published, version) + size_of::<u64>();
const BYTES: usize = offset_of!(SegmentHeader, counters) + size_of::<Counters>();
/// How much of the data area is read at a time on the way to the tail: at first, where often nothing comes, and then.
const LOOKS: [usize; 2] = [512, 32 << 10];
/// So many times at most: an honest writer's tail is closer.
const MOST_LOOKS: u32 = 16;

impl Snapshot {
    /// Reads the header of the segment behind `fd`.
    ///
    /// # Errors
    /// When the file cannot be read or is shorter than a header.
    pub fn read(fd: BorrowedFd<'_>) -> Result<Snapshot> {
        let mut page = [0u8; BYTES];
        let mut again = [0u8; BYTES_OF_VERSIONS];
        for _ in 0..MOST_READS {
            read_exact(fd, &mut page)?;
            // A place whose version has not moved since it was read is whole. Otherwise the writer may have come round to this
            // copy while the kernel was at it.
            read_exact(fd, &mut again)?;
            if versions(&page) == versions(&again) {
                break;
            }
        }
        let mut shot = Self::parse(&page);
        if shot.is_segment {
            shot.tail = walk(fd, shot.tail, align_of(&page));
        }
        Ok(shot)
    }

    fn parse(page: &[u8; BYTES]) -> Snapshot {
        let word = |at: usize| word(page, at);
        let id = offset_of!(SegmentHeader, identity);
        let counters = offset_of!(SegmentHeader, counters);
        let place = |at: usize| {
            let copy = at + offset_of!(Published, copies) + (word(at) & 1) as usize * size_of::<PlaceCell>();
            Place {
                pos: word(copy + offset_of!(PlaceCell, pos)),
                off: word(copy + offset_of!(PlaceCell, off)),
                seq: word(copy + offset_of!(PlaceCell, seq)),
                bytes: word(copy + offset_of!(PlaceCell, bytes)),
            }
        };
        let floor = place(offset_of!(SegmentHeader, floor));
        let mark = place(offset_of!(SegmentHeader, mark));
        let low = |word: u64| word & u64::from(u32::MAX);
        Snapshot {
            is_segment: word(id + offset_of!(Identity, magic)) == MAGIC
                && low(word(id + offset_of!(Identity, version))) == u64::from(LAYOUT_VERSION),
            instance: word(id + offset_of!(Identity, instance)),
            owner: Owner {
                pid: low(word(id + offset_of!(Identity, owner_pid))) as u32,
                start: word(id + offset_of!(Identity, owner_start)),
                boot_id: [word(id + offset_of!(Identity, boot_id)), word(id + offset_of!(Identity, boot_id) + 8)],
            },
            max_capacity: word(id + offset_of!(Identity, max_capacity)),
            tail: if mark.pos >= floor.pos { mark } else { floor },
            floor,
            capacity: word(counters + offset_of!(Counters, capacity)),
            dropped: word(counters + offset_of!(Counters, dropped)),
            overwritten: word(counters + offset_of!(Counters, overwritten)),
            resizes: word(counters + offset_of!(Counters, resizes)),
            evicted: word(counters + offset_of!(Counters, evicted)),
            pending: word(counters + offset_of!(Counters, pending)),
            writer_pid: word(counters + offset_of!(Counters, writer_pid)),
            writer_heartbeat: word(counters + offset_of!(Counters, writer_heartbeat)),
        }
    }
}

/// The beginning of the file.
fn read_exact(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<()> {
    let got = pread(fd, into, 0).map_err(|e| Error::system("read a segment's header", e))?;
    if got != into.len() {
        let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(Error::system(format!("read a segment's header: {got} of {} bytes", into.len()), short));
    }
    Ok(())
}

/// Of mark and floor.
fn versions(bytes: &[u8]) -> [u64; 2] {
    [offset_of!(SegmentHeader, mark), offset_of!(SegmentHeader, floor)]
        .map(|place| word(bytes, place + offset_of!(Published, version)))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn align_of(page: &[u8; BYTES]) -> u64 {
    let both = word(page, offset_of!(SegmentHeader, identity) + offset_of!(Identity, version));
    (both >> 32).max(HEADER)
}

/// Follows the chain from the mark to the tail, or as far as makes sense behind a writer that is at work.
fn walk(fd: BorrowedFd<'_>, mark: Place, align: u64) -> Place {
    let mut at = mark;
    if !align.is_power_of_two() || align > DATA_OFFSET {
        return at;
    }
    let mut buffer = [0u8; LOOKS[1]];
    let mut look = LOOKS[0];
    for _ in 0..MOST_LOOKS {
        let begin = at.off;
        let got = i64::try_from(DATA_OFFSET.saturating_add(begin))
            .ok()
            .and_then(|from| pread(fd, &mut buffer[..look], from).ok())
            .unwrap_or(0);
        let Some(seen) = hop(&buffer[..got], begin, at, align) else { return at };
        at = seen;
        look = LOOKS[1];
        if at.pos.wrapping_sub(mark.pos) > MARK_EVERY {
            break;
        }
    }
    at
}

/// Goes over the records whose headers are in `bytes`, which stand from offset `begin` on. `None` when the first is none.
fn hop(bytes: &[u8], begin: u64, mut at: Place, align: u64) -> Option<Place> {
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
                let stride = stride(len, align);
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
