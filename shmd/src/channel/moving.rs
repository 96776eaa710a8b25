//! Moving a channel to a new segment, because somebody may still write to the old one.
//!
//! A program that has lost the writer role may have been stopped in the middle of a record. When it goes on it finishes that
//! record, wherever its successor has written meanwhile. So a successor gets the same segment only if nobody else can write to
//! it, by the kernel's word ([`file_lock`](shm_proto::internal::os::file_lock)); otherwise the channel moves. What readers see of a move
//! is in the library: `ring/reader/moves.rs`.

use std::fmt;
use std::time::{Duration, Instant};

use shm_proto::internal::os::{barrier, process};
use shm_proto::internal::ring::layout::{Place, control};
use shm_proto::internal::ring::link::ToReader;
use shm_proto::internal::ring::{Beginning, Walk, WalkFrom, Walked};
use shm_proto::{Error, Result};

use super::segment::{Segment, Unborn, this_process};
use super::{Channel, Reader};
use crate::connections::Connections;
use crate::operation_log::operation;

/// Memory of a new segment that is taken at once, in the event loop; the rest is reserved as for any growth.
const AT_ONCE: u64 = 1 << 20;
/// So many segments that readers have not left are kept; then the role is not lent before they have.
const MOST_FORMER: usize = 16;
/// A process that has ended holds its memory for a moment longer.
const DEAD: Duration = Duration::from_millis(100);
/// One that lives may be giving it back.
const ALIVE: Duration = Duration::from_millis(3);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_micros(500);

/// A segment that the channel has left.
#[derive(Debug)]
pub(super) struct Former {
    /// How many moves there were before.
    number: u64,
    /// The position where it ends.
    end: u64,
    segment: Segment,
}

/// Why a channel moves.
#[derive(Debug)]
enum Why {
    /// Somebody can still write to the segment.
    Held(String),
    /// The segment makes no sense.
    Broken(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Held(reason) => f.write_str(reason),
            Why::Broken(reason) => write!(f, "the old segment is broken: {reason}"),
        }
    }
}

/// Whether a reader that attached after so many moves, and has come this far, may still be in segment `number`, which ends at
/// position `end`.
fn may_be_in(number: u64, end: u64, joined: u64, cursor: Option<u64>) -> bool {
    joined <= number && cursor.is_none_or(|cursor| cursor < end)
}

/// The last program that was lent the role.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastHolder {
    pub(super) pid: u32,
    pub(super) start: u64,
}

impl LastHolder {
    /// The process of this number.
    pub(super) fn of(pid: u32) -> Option<Self> {
        process::start_ticks(pid).map(|start| Self { pid, start })
    }
}

impl Channel {
    /// Makes sure that nobody but the next writer can write to the segment. A channel whose segment somebody else can write to
    /// moves.
    ///
    /// # Errors
    /// When it would have to move and cannot.
    pub(super) fn claim_segment(&mut self, connections: &mut Connections) -> Result<()> {
        let is_alive = |last: &LastHolder| process::is_alive(last.pid, last.start);
        let patience = if self.last_holder.as_ref().is_some_and(is_alive) { ALIVE } else { DEAD };
        let until = Instant::now() + patience;
        while self.segment.is_held()? {
            if Instant::now() >= until {
                let who = self.last_holder.map_or_else(String::new, |last| format!(", pid {},", last.pid));
                let why = format!("its former writer{who} can still write to the old segment");
                return match self.move_on(connections, &Why::Held(why)) {
                    Err(Error::Corrupt { reason, .. }) => self.heal(connections, &reason),
                    moved => moved,
                };
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Leaves a broken segment.
    ///
    /// # Errors
    /// When there is no new one to be had.
    pub(super) fn leave_broken(&mut self, connections: &mut Connections, reason: &str) -> Result<()> {
        self.move_on(connections, &Why::Broken(reason.to_owned()))
    }

    /// Goes on in a new segment. Nobody holds the writer role, or who does has been told that it is over.
    fn move_on(&mut self, connections: &mut Connections, why: &Why) -> Result<()> {
        self.forget_formers();
        if self.formers.len() >= MOST_FORMER {
            let slowest = self.readers.iter().filter(|(_, reader)| !reader.evicted).min_by_key(|(_, r)| r.cursor());
            let slowest = slowest.map_or_else(String::new, |(number, _)| format!(", reader {number} longest of all"));
            let reason =
                format!("{MOST_FORMER} former segments are still being read{slowest}; evict it, or try again later");
            let busy = std::io::Error::new(std::io::ErrorKind::ResourceBusy, reason);
            return Err(Error::system(format!("move channel {} to a new segment", self.config.name), busy));
        }
        let goal = self.sizing.pending().unwrap_or(self.sizing.capacity());
        let capacity = goal.min(AT_ONCE);
        let unborn = self.segment.successor(&self.config, &self.geometry, capacity)?;
        self.end_reservation(connections);
        self.mark_moved();
        let end = match why {
            Why::Held(_) => self.end_of_segment(),
            Why::Broken(_) => Ok(self.beginning_after_broken()),
        };
        let moved = end.and_then(|beginning| {
            self.enter(unborn, capacity, &beginning)?;
            Ok(beginning)
        });
        let beginning = moved.inspect_err(|_| self.unmark_moved())?;
        operation("move")
            .on(&self.config.name)
            .text("segment", self.segment.name())
            .number("message", beginning.seq)
            .number("capacity", capacity)
            .reason(why)
            .warn();
        let broken = match why {
            Why::Held(_) => None,
            Why::Broken(reason) => Some(reason.clone()),
        };
        self.tell_moved(connections, beginning.pos, beginning.seq, broken);
        let actions = self.sizing.replaced(Instant::now(), capacity, goal, &self.segment.free());
        self.carry_out(connections, actions);
        Ok(())
    }

    /// From here on readers believe nothing that the old segment gets, before they know where it ends.
    fn mark_moved(&mut self) {
        for reader in self.readers.values() {
            reader.move_once();
        }
        // A reader that sees a record stored after the look below sees the mark above.
        barrier::heavy();
    }

    /// The move does not take place.
    fn unmark_moved(&mut self) {
        for reader in self.readers.values() {
            reader.stay();
            reader.signal(0);
        }
    }

    /// Where the old segment ends: what follows begins there.
    fn end_of_segment(&self) -> Result<Beginning> {
        let shot = self.segment.snapshot()?;
        let mut walk = Walk::begin(self.segment.file(), WalkFrom::Mark)?;
        let Place { pos, seq, bytes, .. } = match walk.go_on(self.segment.file(), &self.geometry, u64::MAX)? {
            Walked::Tail(end) => end,
            other => {
                let reason = format!("the end of its records is not to be found: {other:?}");
                return Err(Error::Corrupt { channel: self.config.name.to_string(), reason });
            }
        };
        let (dropped, overwritten) = (shot.dropped, shot.overwritten);
        Ok(Beginning { pos, seq, bytes, dropped, overwritten, resizes: shot.resizes, evicted: shot.evicted })
    }

    /// The new segment takes the old one's place.
    fn enter(&mut self, unborn: Unborn, capacity: u64, beginning: &Beginning) -> Result<()> {
        let (segment, geometry) = unborn.begin(capacity, this_process()?, beginning)?;
        let mut old = std::mem::replace(&mut self.segment, segment);
        old.retire();
        self.geometry = geometry;
        let Beginning { pos, seq, bytes, .. } = *beginning;
        self.began = Place { pos, seq, bytes, ..Place::default() };
        self.trusted = None;
        self.formers.push(Former { number: self.moves, end: beginning.pos, segment: old });
        self.moves += 1;
        Ok(())
    }

    /// Tells everybody who reads where the old segment ends, and gives out the new one.
    fn tell_moved(&mut self, connections: &mut Connections, pos: u64, seq: u64, broken: Option<String>) {
        let line = ToReader::Moved { geometry: self.geometry.clone(), pos, seq, broken };
        let mut unable = Vec::new();
        for (&number, reader) in self.readers.iter().filter(|(_, reader)| !reader.evicted) {
            match self.segment.for_reader() {
                Ok(fd) => {
                    match self.handoff.as_mut().filter(|_| reader.is_bridge()) {
                        Some(handoff) => handoff.tell_feed(&line, vec![fd]),
                        None => drop(connections.send(reader.client, &line, vec![fd])),
                    }
                    // After the line: a reader that is woken finds it on its connection.
                    reader.signal(0);
                }
                Err(e) => unable.push((number, e)),
            }
        }
        for (number, error) in unable {
            self.mark_evicted(
                connections,
                number,
                &format!("it cannot follow the channel to its new segment: {error}"),
                "daemon",
            );
        }
    }

    /// Lets go of segments that everybody has left.
    pub(super) fn forget_formers(&mut self) {
        let readers = &self.readers;
        let is_needed = |former: &Former| {
            let standing = readers.values().filter(|reader| !reader.evicted);
            let mut places = standing.map(|reader| (reader.joined, reader.cursor()));
            places.any(|(joined, cursor)| may_be_in(former.number, former.end, joined, cursor))
        };
        for former in self.formers.extract_if(.., |former| !is_needed(former)) {
            former.segment.release();
        }
    }

    /// Memory of the segments that readers have not left, in bytes.
    pub(super) fn former_memory(&self) -> u64 {
        self.formers.iter().map(|former| former.segment.memory()).sum()
    }
}

impl Reader {
    /// One more move is to be made.
    fn move_once(&self) {
        self.page().control.value.fetch_add(control::MOVE, std::sync::atomic::Ordering::SeqCst);
    }

    /// One move less.
    fn stay(&self) {
        self.page().control.value.fetch_sub(control::MOVE, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_kept_for_those_who_may_still_be_in_it() {
        let third = |joined, cursor| may_be_in(3, 1000, joined, cursor);
        assert!(third(3, Some(999)) && third(0, Some(0)));
        assert!(third(3, None), "it has not chosen its start, and may choose it there");
        assert!(!third(3, Some(1000)) && !third(0, Some(u64::MAX)), "it is past the end");
        assert!(!third(4, None) && !third(4, Some(0)), "it came later");
    }
}
