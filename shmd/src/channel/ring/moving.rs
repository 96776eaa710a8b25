//! Moving a channel to a new segment, because a process may still write to the old one.
//!
//! A program that has lost the writer role may have been stopped in the middle of a record. When the program continues,
//! it finishes that record, wherever its successor has written in the meantime. So a successor gets the same segment
//! only if the kernel confirms that no other process can write to it
//! ([`file_lock`](shm_proto::internal::os::file_lock)). Otherwise, the channel moves. The library describes what
//! readers see of a move: `ring/reader/moves.rs`.

use std::fmt;
use std::time::Instant;

use shm_proto::internal::os::barrier;
use shm_proto::internal::ring::link::ToReader;
use shm_proto::{Error, ReaderError, Result};

use super::Ring;
use super::segments::{MOST_FORMER, MOST_FORMER_OF_A_USER};
use crate::channel::eviction::By;
use crate::connections::{Connections, is_master};
use crate::operation_log::LogEvent;

/// Memory of a new segment that is reserved at once, in the event loop. The rest is reserved as for any growth.
const AT_ONCE: u64 = 1 << 20;

/// Why a channel moves.
#[derive(Debug)]
pub(super) enum Why {
    /// A process can still write to the segment.
    Held(String),
    /// A reader that the daemon does not know may read the segment: readers of a dead daemon that have not come back.
    Strangers,
    /// The contents of the segment are invalid.
    Broken(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Held(reason) => f.write_str(reason),
            Why::Strangers => f.write_str("readers of the daemon before this one may still read the old segment"),
            Why::Broken(reason) => write!(f, "the old segment is broken: {reason}"),
        }
    }
}

impl Ring {
    /// Moves to a new segment. If the end of the old one cannot be found, the new segment starts behind every possible
    /// place.
    ///
    /// # Errors
    /// If no new segment can be made.
    pub(super) fn move_or_heal(&mut self, connections: &mut Connections, why: &Why) -> Result<()> {
        match self.move_on(connections, why) {
            Err(Error::Reader(ReaderError::Corrupt { reason, .. })) => self.heal(connections, &reason),
            moved => moved,
        }
    }

    /// Leaves a broken segment.
    ///
    /// # Errors
    /// If no new segment can be made.
    pub(super) fn leave_broken(&mut self, connections: &mut Connections, reason: &str) -> Result<()> {
        self.move_on(connections, &Why::Broken(reason.to_owned()))
    }

    /// Continues in a new segment. Nobody holds the writer role, or the holder has been told that it is over.
    fn move_on(&mut self, connections: &mut Connections, why: &Why) -> Result<()> {
        if let Why::Broken(_) = why {
            // The numbers do not continue from where they were.
            self.segments.forget_source();
        }
        self.segments.forget_formers(&self.readers);
        let most = match &self.config.created {
            Some(created) if !is_master(created.uid) => MOST_FORMER_OF_A_USER,
            _ => MOST_FORMER,
        };
        if self.segments.formers() >= most {
            let slowest = self.readers.standing().min_by_key(|(_, reader)| reader.cursor());
            let slowest = slowest.map_or_else(String::new, |(number, _)| format!(", reader {number} longest of all"));
            let reason = format!("{most} former segments are still being read{slowest}; evict it, or try again later");
            let busy = std::io::Error::new(std::io::ErrorKind::ResourceBusy, reason);
            return Err(Error::system(format!("move channel {} to a new segment", self.config.name), busy));
        }
        let goal = self.size.goal();
        let capacity = goal.min(AT_ONCE);
        let next = self.segments.successor(&self.config, capacity)?;
        self.size.end_reservation(connections);
        // From here on, readers trust nothing that is added to the old segment until they know where it ends.
        self.readers.iter().for_each(|(_, reader)| reader.move_once());
        // A reader that sees a record stored after the look below also sees the mark above.
        barrier::heavy();
        let end = match why {
            Why::Held(_) | Why::Strangers => self.segments.end(),
            Why::Broken(_) => {
                let most = self.segments.geometry().max_capacity;
                Ok(self.health.beginning_after_broken(&self.readers, most))
            }
        };
        let moved = end.and_then(|beginning| {
            self.segments.enter(next, capacity, &beginning)?;
            Ok(beginning)
        });
        let beginning = moved.inspect_err(|_| {
            for (_, reader) in self.readers.iter() {
                reader.stay();
                reader.signal(0);
            }
        })?;
        self.health.moved(&beginning);
        self.segments.note_readers(&self.readers, &self.returning);
        self.about(LogEvent::Move)
            .text("segment", self.segments.current().name())
            .number("message", beginning.seq)
            .number("capacity", capacity)
            .reason(why)
            .warn();
        let broken = match why {
            Why::Held(_) | Why::Strangers => None,
            Why::Broken(reason) => Some(reason.clone()),
        };
        self.tell_moved(connections, beginning.pos, beginning.seq, broken);
        self.change_size(connections, |sizing, free| sizing.replaced(Instant::now(), capacity, goal, free));
        Ok(())
    }

    /// Tells all readers where the old segment ends, and hands out the new one.
    fn tell_moved(&mut self, connections: &mut Connections, pos: u64, seq: u64, broken: Option<String>) {
        let line = ToReader::Moved { geometry: self.segments.geometry().clone(), pos, seq, broken };
        let mut unable = Vec::new();
        for (number, reader) in self.readers.standing_mut() {
            match self.segments.current().for_reader() {
                Ok(fd) => {
                    reader.tell(connections, &line, vec![fd]);
                    // After the line, so that a reader that is woken finds the line on its connection.
                    reader.signal(0);
                }
                Err(e) => unable.push((number, e)),
            }
        }
        for (number, error) in unable {
            let reason = format!("it cannot follow the channel to its new segment: {error}");
            self.evict(connections, number, &reason, By::Daemon);
        }
    }
}
