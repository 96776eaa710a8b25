//! The segments of a ring: the current one, and former ones that readers have not left.

use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};

use shm_proto::internal::ring::layout::{LEFT, Place};
use shm_proto::internal::ring::link::{ToReader, ToWriter};
use shm_proto::internal::ring::{
    Beginning, NotedReader, Snapshot, SourceNote, Walk, WalkFrom, Walked, note_readers, note_source, note_unnamed,
    noted_source, noted_unnamed,
};
use shm_proto::{Geometry, ReaderError, Result, SystemError};

use super::next_segment::NextSegment;
use super::returning::Returning;
use super::segment::{self, NoteFile, Segment};
use crate::channel::readers::Readers;
use crate::config::ChannelConfig;

/// The largest number of former segments that are kept for their readers. Beyond that, the role is not lent until
/// readers have left.
pub(super) const MOST_FORMER: usize = 16;

/// The same of a channel that a user has made at run time. What users make may take no more than twice the memory that the
/// configuration lets them have.
pub(super) const MOST_FORMER_OF_A_USER: usize = 1;

/// The largest number of former segments whose instances are remembered, which is more than are kept. A program that
/// borrows the role and loses it again and again adds to them.
const MOST_TRAIL: usize = 4 * MOST_FORMER;

/// A segment that the channel has left.
#[derive(Debug)]
struct Former {
    /// The number of moves before this segment was left.
    number: u64,
    /// The position where the segment ends.
    end: u64,
    segment: Segment,
}

/// Whether a reader that attached after this many moves, and has come this far, may still be in segment `number`, which
/// ends at position `end`.
fn may_be_in(number: u64, end: u64, joined: u64, cursor: Option<u64>) -> bool {
    joined <= number && cursor.is_none_or(|cursor| cursor < end)
}

/// A ring's segments.
#[derive(Debug)]
pub(in crate::channel) struct Segments {
    current: Segment,
    geometry: Geometry,
    /// Oldest first.
    formers: Vec<Former>,
    /// The number of segments that the channel has left in total.
    moves: u64,
    /// The last of the former segments, in order, and where each ended: its instance, position, number.
    trail: Vec<(u64, u64, u64)>,
    /// The number of readers of a dead daemon that may stand in the current segment and have not come back.
    strangers: u64,
}

impl Segments {
    /// The segments of a channel in its first segment.
    pub(super) fn new(current: Segment, geometry: Geometry) -> Self {
        Self { current, geometry, formers: Vec::new(), moves: 0, trail: Vec::new(), strangers: 0 }
    }

    /// The segments of a channel in a segment that a dead daemon has left, with `readers` or without.
    pub(super) fn adopted(current: Segment, geometry: Geometry, shot: &Snapshot, readers: bool) -> Self {
        let mut segments = Self::new(current, geometry);
        if shot.previous != 0 {
            // The dead daemon has made that move, and may not have told every reader.
            segments.trail.push((shot.previous, shot.began.0, shot.began.1));
            segments.moves = 1;
        }
        segments.strangers = if readers { shot.readers } else { 0 };
        segments
    }

    /// Whether a reader that the daemon does not know may read the current segment. Then nothing may be overwritten
    /// there.
    pub(super) fn have_strangers(&self) -> bool {
        self.strangers > 0
    }

    /// This number of these readers have come back, or are dead.
    pub(super) fn know(&mut self, strangers: u64) {
        self.strangers = self.strangers.saturating_sub(strangers);
    }

    /// The number of moves from a segment to the current one, if the way is known.
    pub(in crate::channel) fn way_from(&self, instance: u64) -> Option<usize> {
        if instance == self.geometry.instance {
            return Some(0);
        }
        self.trail.iter().position(|(left, ..)| *left == instance).map(|at| self.trail.len() - at)
    }

    /// The lines, with their descriptors, for a reader that must make the last `count` moves. `None` if a segment on
    /// the way is gone.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub(in crate::channel) fn last_moves(&self, count: usize) -> Result<Option<Vec<(ToReader, OwnedFd)>>> {
        let mut lines = Vec::new();
        let forgotten = self.moves - self.trail.len() as u64;
        for at in self.trail.len() - count..self.trail.len() {
            let (_, pos, seq) = self.trail[at];
            let (instance, segment) = match self.trail.get(at + 1) {
                None => (self.geometry.instance, &self.current),
                Some((next, ..)) => match self.formers.iter().find(|former| former.number == forgotten + at as u64 + 1)
                {
                    Some(former) => (*next, &former.segment),
                    None => return Ok(None),
                },
            };
            let mut geometry = self.geometry.clone();
            geometry.instance = instance;
            lines.push((ToReader::Moved { geometry, pos, seq, broken: None }, segment.for_reader()?));
        }
        Ok(Some(lines))
    }

    /// Notes the readers for the next daemon.
    pub(super) fn note_readers(&self, readers: &Readers, returning: &Returning) {
        // This includes the readers that this daemon waits for, because it may die before they are back. A reader that
        // was evicted does not come back.
        let count = self.strangers.max(returning.missing()) + readers.standing().count() as u64;
        let attached =
            readers.standing().map(|(_, reader)| NotedReader { page: reader.page_id().inode, pid: reader.peer().pid });
        if let Err(e) = note_readers(self.current.file(), count, attached.chain(returning.readers())) {
            log::debug!("event=no-note segment={} reason={:?}", self.current.name(), e.to_string());
        }
    }

    /// Notes one more reader that the writer does not know, because it has not found this daemon yet.
    pub(super) fn note_unnamed(&self) {
        let file = self.current.file();
        if let Err(e) = noted_unnamed(file).and_then(|readers| note_unnamed(file, readers.saturating_add(1))) {
            log::debug!("event=no-note segment={} reason={:?}", self.current.name(), e.to_string());
        }
    }

    /// Whether there may be readers that the writer does not know, because it has not found their daemon.
    pub(super) fn has_unnamed(&self) -> bool {
        !matches!(noted_unnamed(self.current.file()), Ok(0))
    }

    /// A writer begins or goes on, which has been told that there are lines to come: they name all readers.
    pub(super) fn name_all(&self) {
        // Before the 0: a writer that sees it also sees in its lease page that there are lines to come.
        fence(Ordering::SeqCst);
        if self.has_unnamed()
            && let Err(e) = note_unnamed(self.current.file(), 0)
        {
            log::debug!("event=no-note segment={} reason={:?}", self.current.name(), e.to_string());
        }
    }

    /// How far a source had read its file when the messages in the current segment were published.
    pub(super) fn source(&self) -> SourceNote {
        noted_source(self.current.file()).unwrap_or_default()
    }

    /// Forgets how far the source had read, because another writer publishes.
    pub(super) fn forget_source(&self) {
        if self.source() != SourceNote::default()
            && let Err(e) = note_source(self.current.file(), SourceNote::default())
        {
            log::debug!("event=no-note segment={} reason={:?}", self.current.name(), e.to_string());
        }
    }

    /// The current segment.
    pub(in crate::channel) fn current(&self) -> &Segment {
        &self.current
    }

    /// The file of the current segment, for the notes of another thread.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub(in crate::channel) fn note_file(&mut self) -> Result<NoteFile, SystemError> {
        self.current.note_file()
    }

    /// The current segment, for changes.
    pub(super) fn current_mut(&mut self) -> &mut Segment {
        &mut self.current
    }

    /// What the header of the current segment says, and what peers that attach are told.
    pub(in crate::channel) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The number of segments that were left so far.
    pub(in crate::channel) fn moves(&self) -> u64 {
        self.moves
    }

    /// Memory of all segments, in bytes.
    pub(in crate::channel) fn memory(&self) -> u64 {
        self.current.memory() + self.formers.iter().map(|former| former.segment.memory()).sum::<u64>()
    }

    /// The number of former segments that are still being read.
    pub(super) fn formers(&self) -> usize {
        self.formers.len()
    }

    /// Releases former segments that all readers have left.
    pub(super) fn forget_formers(&mut self, readers: &Readers) {
        let is_needed = |former: &Former| {
            let mut places = readers.standing().map(|(_, reader)| (reader.joined(), reader.cursor()));
            places.any(|(joined, cursor)| may_be_in(former.number, former.end, joined, cursor))
        };
        for former in self.formers.extract_if(.., |former| !is_needed(former)) {
            former.segment.release();
        }
    }

    /// Where the records in the current segment end: the next segment begins there.
    pub(super) fn end(&self) -> Result<Beginning> {
        let shot = self.current.snapshot()?;
        let mut walk = Walk::begin(self.current.file(), WalkFrom::Mark)?;
        let Place { pos, seq, bytes, .. } = match walk.go_on(self.current.file(), &self.geometry, u64::MAX)? {
            Walked::Tail(end) => end,
            other => {
                let reason = format!("the end of its records is not to be found: {other:?}");
                return Err(ReaderError::Corrupt { channel: self.geometry.channel.to_string(), reason }.into());
            }
        };
        let Snapshot { dropped, overwritten, resizes, evicted, .. } = shot;
        Ok(Beginning { pos, seq, bytes, dropped, overwritten, resizes, evicted, previous: 0 })
    }

    /// A segment that will replace the current one.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn successor(&self, config: &ChannelConfig, capacity: u64) -> Result<NextSegment, SystemError> {
        self.current.successor(config, &self.geometry, capacity)
    }

    /// Replaces the current segment with the new one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn enter(&mut self, next: NextSegment, capacity: u64, beginning: &Beginning) -> Result<()> {
        let previous = self.geometry.instance;
        let (segment, geometry) = next.begin(capacity, &self.current, &Beginning { previous, ..*beginning })?;
        // The readers have not been told yet. A writer that has not found this daemon must leave them alone when they have gone on.
        if let Err(e) = note_unnamed(self.current.file(), LEFT) {
            log::debug!("event=no-note segment={} reason={:?}", segment.name(), e.to_string());
        }
        let mut old = std::mem::replace(&mut self.current, segment);
        old.retire();
        self.geometry = geometry;
        if self.trail.len() == MOST_TRAIL {
            self.trail.remove(0);
        }
        self.trail.push((previous, beginning.pos, beginning.seq));
        self.strangers = 0;
        self.formers.push(Former { number: self.moves, end: beginning.pos, segment: old });
        self.moves += 1;
        Ok(())
    }

    /// Applies a reload to what later writers and readers are told. Returns the line for the current writer, if
    /// anything has changed.
    pub(super) fn set_policy(&mut self, config: &ChannelConfig) -> Option<ToWriter> {
        let fresh = segment::geometry(config);
        let now = &mut self.geometry;
        let before = now.clone();
        now.max_readers = fresh.max_readers;
        now.evict_after_ms = fresh.evict_after_ms;
        now.ack = fresh.ack;
        now.ack_timeout_ms = fresh.ack_timeout_ms;
        now.wait_readers = fresh.wait_readers;
        now.prefault = fresh.prefault;
        (*now != before).then(|| self.policy())
    }

    /// The policy line for a writer.
    pub(super) fn policy(&self) -> ToWriter {
        let now = &self.geometry;
        ToWriter::Policy {
            ack: now.ack,
            ack_timeout_ms: now.ack_timeout_ms,
            evict_after_ms: now.evict_after_ms,
            wait_readers: now.wait_readers,
        }
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
