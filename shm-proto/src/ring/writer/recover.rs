//! Taking over a ring, by walking the chain of records that the last writer left.
//!
//! The chain is hostile input: every header is checked before it is followed.

use std::time::Duration;

use crate::os::{clock, poll};
use crate::ring::chain::implausible;
use crate::ring::commit::{Words, look};
use crate::ring::geometry::Geometry;
use crate::ring::link::{ToDaemon, WriterLink};
use crate::ring::marks::Marks;
use crate::ring::plan::{MAX_EXTENTS, Plan};
use crate::ring::published::Place;
use crate::ring::record::{HEADER, Kind};
use crate::ring::segment::Segment;
use crate::ring::writer::error::{Result, WriterError};

/// How long to wait for the daemon to replace a segment.
const CLOSED: Duration = Duration::from_secs(10);

/// The state that was rebuilt from the chain.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) plan: Plan,
    pub(super) marks: Marks,
    pub(super) floor: Place,
    pub(super) tail: Place,
}

/// The place after the record at `place`, or `None` at the tail. The file has `length` bytes of data.
pub(super) fn step(
    words: &impl Words,
    place: Place,
    geometry: &Geometry,
    length: u64,
) -> Result<Option<Place>, String> {
    let header = look(words, place.off);
    let next = match header.kind() {
        Kind::Empty => return Ok(None),
        Kind::Data { len } if len <= geometry.max_message => {
            let stride = geometry.strides().of(len);
            Place {
                pos: place.pos + stride,
                off: place.off + stride,
                seq: place.seq + 1,
                bytes: place.bytes.wrapping_add(len),
            }
        }
        Kind::Jump { target } => Place { pos: place.pos + HEADER, off: target, ..place },
        Kind::Data { len } => return Err(format!("a record of {len} bytes at offset {}", place.off)),
        Kind::Bad => return Err(format!("no header but {:#x} at offset {}", header.0, place.off)),
    };
    if !header.is_for(place.seq) {
        return Err(format!("the header {:#x} at offset {} is not number {}", header.0, place.off, place.seq));
    }
    check(next, geometry, length)?;
    Ok(Some(next))
}

/// Checks that a header may stand at this place.
fn check(place: Place, geometry: &Geometry, length: u64) -> Result<(), String> {
    implausible(place, geometry, length).map_or(Ok(()), Err)
}

/// Rebuilds the writer's bookkeeping, starting at the floor.
pub(super) fn recover(segment: &Segment, geometry: &Geometry, capacity: u64) -> Result<Recovered> {
    let length = segment.length();
    let corrupt = |reason: String| WriterError::Corrupt { channel: geometry.channel.to_string(), reason };
    let floor = segment.header().floor.load().ok_or_else(|| corrupt("the floor changes all the time".to_owned()))?;
    if !floor.is_plausible() {
        return Err(corrupt(format!("no chain comes to position {} and message {}", floor.pos, floor.seq)));
    }
    check(floor, geometry, length).map_err(corrupt)?;
    let mut plan = Plan::new(capacity, u64::from(geometry.align), floor);
    let mut marks = Marks::new(capacity, geometry.on_full, floor);
    let mut tail = floor;
    let mut jumps = 0;
    while let Some(next) = step(segment, tail, geometry, length).map_err(corrupt)? {
        // A whole chain is no longer than the data area. A longer chain runs in circles.
        if next.pos - floor.pos > geometry.max_capacity {
            return Err(corrupt(format!("the records from offset {} go round in circles", floor.off)));
        }
        if next.off == tail.off + (next.pos - tail.pos) {
            plan.push(next.pos - tail.pos);
        } else {
            jumps += 1;
            if jumps > MAX_EXTENTS {
                return Err(corrupt(format!("more than {MAX_EXTENTS} jumps from offset {}", floor.off)));
            }
            plan.jump(next.off);
        }
        tail = next;
        marks.note(tail);
    }
    Ok(Recovered { plan, marks, floor, tail })
}

/// Tells the daemon that a ring cannot be taken over, and waits until the daemon has acted, which closes the link.
pub(super) fn report(mut link: WriterLink, error: WriterError) -> WriterError {
    let WriterError::Corrupt { reason, .. } = &error else { return error };
    if link.send(ToDaemon::Broken { reason: reason.clone() }).is_err() {
        return error;
    }
    let deadline = clock::after(CLOSED);
    while clock::monotonic_ns() < deadline
        && link.receive().is_ok()
        && let Some(fd) = link.as_fd()
    {
        // The loop looks again, whether the wait failed or not.
        let _ = poll::readable(fd, Some(clock::left(deadline)));
    }
    error
}
