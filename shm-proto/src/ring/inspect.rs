//! What a segment's header says, read without mapping it.
//!
//! A program that was lent the writer role may cut the file short, and whoever touches mapped memory past its end dies of
//! SIGBUS. `pread` fails instead, so the daemon looks at lent channels this way only.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use nix::sys::uio::pread;

use super::layout::{Counters, Identity, LAYOUT_VERSION, MAGIC, Progress, SegmentHeader};
use super::published::{Place, PlaceCell, Published};
use super::segment::Owner;
use crate::error::{Error, Result};

/// A segment's header at one moment. Each figure is right by itself; two may be a few messages apart.
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
    /// Position after the newest record.
    pub tail_pos: u64,
    /// Messages committed.
    pub messages: u64,
    /// Payload bytes committed.
    pub bytes: u64,
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

const BYTES: usize = offset_of!(SegmentHeader, counters) + size_of::<Counters>();

impl Snapshot {
    /// Reads the header of the segment behind `fd`.
    ///
    /// # Errors
    /// When the file cannot be read or is shorter than a header.
    pub fn read(fd: BorrowedFd<'_>) -> Result<Snapshot> {
        let mut page = [0u8; BYTES];
        let got = pread(fd, &mut page, 0).map_err(|e| Error::system("read a segment's header", e))?;
        if got != BYTES {
            let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(Error::system(format!("read a segment's header: {got} of {BYTES} bytes"), short));
        }
        Ok(Self::parse(&page))
    }

    fn parse(page: &[u8; BYTES]) -> Snapshot {
        let word = |at: usize| {
            let mut bytes = [0u8; 8];
            bytes.copy_from_slice(&page[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let id = offset_of!(SegmentHeader, identity);
        let progress = offset_of!(SegmentHeader, progress);
        let counters = offset_of!(SegmentHeader, counters);
        let floor = offset_of!(SegmentHeader, floor);
        let copy = floor + offset_of!(Published, copies) + (word(floor) & 1) as usize * size_of::<PlaceCell>();
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
            tail_pos: word(progress + offset_of!(Progress, pos)),
            messages: word(progress + offset_of!(Progress, messages)),
            bytes: word(progress + offset_of!(Progress, bytes)),
            floor: Place {
                pos: word(copy + offset_of!(PlaceCell, pos)),
                off: word(copy + offset_of!(PlaceCell, off)),
                seq: word(copy + offset_of!(PlaceCell, seq)),
                bytes: word(copy + offset_of!(PlaceCell, bytes)),
            },
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
