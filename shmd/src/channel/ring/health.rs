//! Broken segments: detecting them, and continuing in a new segment.
//!
//! | who finds the fault | what is checked before the report is believed |
//! |---|---|
//! | the daemon, once per second and before a peer is let in | header, published places, capacity, the file's length |
//! | a reader, which says so on its connection | every record, in parts, at most once per second |
//! | a program or source that takes over the writer role and fails | nothing: it may write what it likes |
//!
//! All checks use `pread`. Then the lease ends, and the channel moves: see [`moving`](super::moving).

use std::io::ErrorKind as Io;
use std::time::{Duration, Instant};

use shm_proto::internal::ring::layout::Place;
use shm_proto::internal::ring::record::LEAST_ALIGN;
use shm_proto::internal::ring::{Beginning, Snapshot, Walk, WalkFrom, Walked};
use shm_proto::{Error, ErrorKind, ReaderError, Refusal, Result, SystemError};

use super::Ring;
use super::segments::Segments;
use crate::channel::readers::Readers;
use crate::connections::Connections;
use crate::event_loop::Timer;
use crate::operation_log::LogEvent;

/// Bytes of a file to check at a time, and the pause after each part, in which the daemon serves others.
const PART: u64 = 1 << 20;
const REST: Duration = Duration::from_millis(5);
/// Reports from readers lead to at most one check of all records in this time.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// The largest credible distance between a reader's claimed place and the last place that the daemon trusts. This is
/// more than is written between two looks.
const CREDIBLE: u64 = 1 << 40;

/// The result of a look at the header.
#[derive(Debug)]
enum Finding {
    Good(Snapshot),
    /// The state cannot be determined now.
    Unknown(Error),
    Broken(String),
}

/// Whether a chain can have moved from one place to the other since the daemon's last look.
fn follows(before: Place, after: Place) -> bool {
    let ahead = |before: u64, after: u64| (before..=before.saturating_add(CREDIBLE)).contains(&after);
    ahead(before.pos, after.pos) && ahead(before.seq, after.seq)
}

/// Where the segment after a broken one begins: behind every place at which an honest reader can stand. `claims` are
/// positions and numbers that readers have published. Each reader may have read further by as much as the ring holds.
/// It is not known how many messages are skipped.
fn after_broken(trusted: Place, claims: impl Iterator<Item = (u64, u64)>, ring: u64) -> Place {
    let (mut pos, mut seq) = (trusted.pos, trusted.seq);
    for (cursor, number) in claims {
        if follows(trusted, Place { pos: cursor, seq: number, ..trusted }) {
            (pos, seq) = (pos.max(cursor), seq.max(number));
        }
    }
    // The smallest message takes as many bytes as the smallest alignment.
    Place { pos: pos.next_multiple_of(LEAST_ALIGN) + ring, seq: seq + ring / LEAST_ALIGN, ..trusted }
}

/// What is known about a segment's state.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Where the segment begins, and its header when it was last found valid.
    began: Place,
    /// `began` is not known, because the places of an adopted segment have not been seen yet.
    is_unseen: bool,
    trusted: Option<Snapshot>,
    /// What is wrong with the segment, while there is no replacement.
    broken: Option<String>,
    /// A check of all records that is in progress, and when the last one began.
    inspection: Option<Walk>,
    inspected: Option<Instant>,
}

impl Health {
    /// Checks the header of a segment for which `capacity` bytes were reserved.
    fn examine(&self, segments: &Segments, capacity: u64) -> Finding {
        let shot = match segments.current().snapshot() {
            Ok(shot) => shot,
            Err(error) if error.kind() == Io::UnexpectedEof => {
                return Finding::Broken(error.to_string());
            }
            Err(e) => return Finding::Unknown(e.into()),
        };
        let length = match segments.current().data_length() {
            Ok(length) => length,
            Err(e) => return Finding::Unknown(e.into()),
        };
        if length < capacity {
            return Finding::Broken(format!("the file has {length} bytes of data, {capacity} were reserved"));
        }
        if let Some(fault) = shot.fault(segments.geometry(), length) {
            return Finding::Broken(fault);
        }
        // Of the tail, only a lower bound is known.
        let before = self.trusted.map_or(self.began, |before| before.floor);
        if follows(before, shot.floor) || (self.is_unseen && self.trusted.is_none()) {
            return Finding::Good(shot);
        }
        let place = |place: Place| format!("position {}, message {}", place.pos, place.seq);
        let (was, is) = (place(before), place(shot.floor));
        Finding::Broken(format!("the floor was at {was}, and is at {is}"))
    }

    /// Whether the segment is broken and there is no replacement.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// What is known about a segment that a dead daemon has left.
    pub(super) fn adopted(shot: Snapshot) -> Self {
        // A snapshot without places: a writer is working, and the first look that sees the places is believed.
        let is_seen = shot.tail != Place::default();
        Self { began: shot.floor, trusted: is_seen.then_some(shot), is_unseen: !is_seen, ..Self::default() }
    }

    /// Notes that there is a new segment, which begins here.
    pub(super) fn moved(&mut self, beginning: &Beginning) {
        let Beginning { pos, seq, bytes, .. } = *beginning;
        self.began = Place { pos, seq, bytes, ..Place::default() };
        self.is_unseen = false;
        self.trusted = None;
    }

    /// Where the segment after a broken one begins, in a ring of at most `capacity` bytes.
    pub(super) fn beginning_after_broken(&self, readers: &Readers, capacity: u64) -> Beginning {
        let trusted = self.trusted.map_or(self.began, |shot| shot.tail);
        let claims = readers.standing().filter_map(|(_, reader)| Some((reader.cursor()?, reader.seq())));
        let Place { pos, seq, bytes, .. } = after_broken(trusted, claims, capacity);
        let counted = self.trusted.map(|shot| (shot.dropped, shot.overwritten, shot.resizes, shot.evicted));
        let (dropped, overwritten, resizes, evicted) = counted.unwrap_or_default();
        Beginning { pos, seq, bytes, dropped, overwritten, resizes, evicted, previous: 0 }
    }
}

impl Ring {
    /// Checks the segment, and replaces it if it is broken. Returns what its header says.
    ///
    /// # Errors
    /// Why no peer can be let in.
    pub(super) fn check(&mut self, connections: &mut Connections) -> Result<Snapshot> {
        let mut found = self.examine();
        if let Finding::Broken(_) = found {
            // Each word is read at one moment, but not all words at the same moment.
            found = self.examine();
        }
        if let Finding::Broken(reason) = found {
            self.heal(connections, &reason)?;
            found = self.examine();
        }
        match found {
            Finding::Good(shot) => {
                self.health.trusted = Some(shot);
                Ok(shot)
            }
            Finding::Unknown(e) => Err(e),
            Finding::Broken(reason) => {
                Err(ReaderError::Corrupt { channel: self.config.name.to_string(), reason }.into())
            }
        }
    }

    /// What the segment's header says now. If the writer is so fast that its places are never seen whole: what the
    /// header said when they last were, or the header without places if they never were.
    ///
    /// # Errors
    /// If a program that was lent the writer role has truncated the file.
    pub(in crate::channel) fn snapshot(&self) -> Result<Snapshot, SystemError> {
        match self.segments.current().snapshot() {
            Err(e) if e.kind() == Io::ResourceBusy => {
                self.health.trusted.map_or_else(|| self.segments.current().snapshot_without_places(), Ok)
            }
            shot => shot,
        }
    }

    fn examine(&self) -> Finding {
        self.health.examine(&self.segments, self.size.capacity())
    }

    /// The same, for a peer that wants to be let in.
    pub(in crate::channel) fn check_for(&mut self, connections: &mut Connections) -> Result<(), Refusal> {
        match self.check(connections) {
            // A writer that keeps replacing its places is no problem for a reader.
            Ok(_) => Ok(()),
            Err(Error::System(error)) if error.kind() == Io::ResourceBusy && !self.health.is_broken() => Ok(()),
            Err(e) => self.refuse(ErrorKind::Internal, format!("its segment is broken and cannot be replaced: {e}")),
        }
    }

    /// Ends the lease of a broken segment, and continues in a new one.
    ///
    /// # Errors
    /// If no new segment can be made. The daemon tries again once per second.
    pub(super) fn heal(&mut self, connections: &mut Connections, reason: &str) -> Result<()> {
        if !self.health.is_broken() {
            self.about(LogEvent::Broken).text("segment", self.segments.current().name()).reason(reason).error();
        }
        self.health.broken = Some(reason.to_owned());
        self.health.inspection = None;
        connections.events.set_timer(Timer::Inspect(self.id), None);
        self.end_lease(connections, &format!("the segment was broken and is replaced: {reason}"));
        self.leave_broken(connections, reason)?;
        self.health.broken = None;
        self.health.trusted = None;
        self.resume_source(connections);
        Ok(())
    }

    /// Tries again to replace a broken segment. Returns whether there is no broken segment any more.
    pub(super) fn retry_healing(&mut self, connections: &mut Connections, now: Instant) -> bool {
        let Some(reason) = self.health.broken.clone() else { return true };
        match self.heal(connections, &reason) {
            Ok(()) => true,
            Err(e) => {
                if let Some(left_out) = self.trouble.admit(now) {
                    self.about(LogEvent::Broken).reason(e).left_out(left_out).error();
                }
                false
            }
        }
    }

    /// Replaces a segment that has just been found broken, or logs why that failed.
    pub(super) fn heal_or_log(&mut self, connections: &mut Connections, reason: &str) {
        if let Err(e) = self.heal(connections, reason) {
            self.about(LogEvent::Broken).reason(e).error();
        }
    }

    /// Handles a reader's report of a fault. All records are checked before the report is believed.
    pub(crate) fn suspect(&mut self, connections: &mut Connections, now: Instant) {
        let lately = self.health.inspected.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_LOOKS);
        if self.health.inspection.is_some() || lately || self.removal.is_closed() {
            return;
        }
        self.health.inspected = Some(now);
        match Walk::begin(self.segments.current().file(), WalkFrom::Floor) {
            Ok(walk) => {
                self.health.inspection = Some(walk);
                self.inspect(connections);
            }
            // The next tick reports the reason.
            Err(e) => self.no_inspection(&e),
        }
    }

    /// Continues the check of the records.
    pub(crate) fn inspect(&mut self, connections: &mut Connections) {
        let Some(walk) = &mut self.health.inspection else { return };
        match walk.go_on(self.segments.current().file(), self.segments.geometry(), PART) {
            Ok(Walked::More) => connections.events.set_timer(Timer::Inspect(self.id), Some(Instant::now() + REST)),
            Ok(Walked::Broken(reason)) => self.heal_or_log(connections, &reason),
            Ok(Walked::Tail(_) | Walked::Overtaken) => self.health.inspection = None,
            Err(e) => {
                self.health.inspection = None;
                self.no_inspection(&e);
            }
        }
    }

    fn no_inspection(&self, error: &SystemError) {
        log::debug!("event=no-inspection channel={} reason={:?}", self.config.name, error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: u64 = 1 << 20;
    const TRUSTED: Place = Place { pos: 1000, off: 8, seq: 10, bytes: 77 };

    #[test]
    fn what_follows_a_broken_segment_begins_behind_every_honest_reader() {
        let begins = |claims: &[(u64, u64)]| {
            let place = after_broken(TRUSTED, claims.iter().copied(), RING);
            assert_eq!(place.bytes, 77);
            (place.pos, place.seq)
        };
        assert_eq!(begins(&[]), (1008 + RING, 10 + RING / 16));
        assert_eq!(begins(&[(500, 5), (3001, 40), (2000, 30)]), (3008 + RING, 40 + RING / 16));
    }

    #[test]
    fn a_reader_that_lies_moves_the_beginning_by_a_bounded_amount() {
        for (cursor, number) in
            [(u64::MAX - 1, 20), (2000, u64::MAX), (1000 + CREDIBLE + 1, 20), (u64::MAX / 2, 1 << 62)]
        {
            let place = after_broken(TRUSTED, [(cursor, number), (2000, 20)].into_iter(), RING);
            assert_eq!((place.pos, place.seq), (2000 + RING, 20 + RING / 16), "{cursor} {number}");
        }
        let most = after_broken(TRUSTED, [(1000 + CREDIBLE, 10 + CREDIBLE)].into_iter(), RING);
        assert!(most.is_plausible() && most.pos <= 1000 + 2 * CREDIBLE);
    }
}
