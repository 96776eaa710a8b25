//! The end of a source: the daemon waits for the readers that have not read everything.

use std::collections::HashMap;
use std::time::Instant;

use shm_proto::internal::ring::standstill::{Limit, Standstill};

use super::{By, Ring};
use crate::channel::readers::Readers;
use crate::connections::Connections;

/// A reader that has not read everything.
#[derive(Debug)]
struct Late {
    /// The cursor at the last look.
    cursor: Option<u64>,
    /// When the last look was.
    at: Instant,
    standstill: Standstill,
}

impl Late {
    fn new(cursor: Option<u64>, now: Instant) -> Self {
        Self { cursor, at: now, standstill: Standstill::default() }
    }

    /// Looks at the reader; returns whether to ask it for its cursor.
    fn look(&mut self, cursor: Option<u64>, now: Instant, limit: Limit) -> bool {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        if std::mem::replace(&mut self.cursor, cursor) != cursor {
            self.standstill.moved();
        }
        let ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        self.standstill.waited(ns.min(limit.most_between_looks_ns()), limit)
    }
}

/// The readers that have not read everything, at the end of a source.
#[derive(Debug, Default)]
pub(super) struct Drain(HashMap<u32, Late>);

impl Drain {
    /// A reader is gone.
    pub(super) fn forget(&mut self, number: u32) {
        self.0.remove(&number);
    }

    /// Looks at all readers: whether they have read everything up to `tail`, and which of them have stood still for too long,
    /// with the reason.
    fn look(&mut self, readers: &Readers, tail: u64, now: Instant, limit: Limit) -> (bool, Vec<(u32, String)>) {
        let (mut drained, mut over) = (true, Vec::new());
        for (number, reader) in readers.standing() {
            let cursor = reader.cursor();
            if cursor.is_some_and(|cursor| cursor >= tail) {
                continue;
            }
            drained = false;
            let late = self.0.entry(number).or_insert_with(|| Late::new(cursor, now));
            if late.look(cursor, now, limit) {
                reader.ask();
            }
            if late.standstill.is_over(limit) {
                let behind = cursor.map_or(0, |cursor| tail - cursor);
                let stood = late.standstill.stood_ns() / 1_000_000;
                over.push((
                    number,
                    format!("it held the end up for {stood} ms without reading, {behind} bytes behind"),
                ));
            }
        }
        (drained, over)
    }
}

impl Ring {
    /// Whether every reader has read everything; to be called repeatedly until it has. Evicts a reader that has not moved for
    /// `evict_after`, as the writer would.
    pub(crate) fn is_drained(&mut self, connections: &mut Connections, now: Instant) -> bool {
        let shot = match self.segments.current().snapshot() {
            Ok(shot) => shot,
            // The header could not be read this time; the next call may succeed.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => return false,
            Err(_) => return true,
        };
        let limit = Limit::new(self.segments.geometry().evict_after_ms);
        let (drained, over) = self.drain.look(&self.readers, shot.tail.pos, now, limit);
        for (number, reason) in over {
            self.evict(connections, number, &reason, By::Daemon);
        }
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_reader_has_to_stand_still_for_the_whole_time_after_it_was_asked() {
        let (limit, start) = (Limit::new(1000), Instant::now());
        let mut late = Late::new(Some(8), start);
        let mut look = |ms: u64, cursor: u64| {
            let asked = late.look(Some(cursor), start + Duration::from_millis(ms), limit);
            (asked, late.standstill.is_over(limit))
        };
        assert_eq!(look(50, 8), (false, false));
        assert_eq!(look(100, 8), (true, false));
        // The reader moves just in time, and the time starts again.
        assert_eq!(look(1090, 16), (true, false));
        for ms in (1190..2070).step_by(20) {
            assert!(!look(ms, 16).1, "{ms}");
        }
        // However long the time between two looks is.
        assert_eq!(look(1_000_000, 24), (true, false));
        assert_eq!(look(2_000_000, 24), (true, false));
        assert_eq!((0..3).map(|n| look(3_000_000 + n * 1000, 24).1).collect::<Vec<_>>(), [false, false, true]);
    }
}
