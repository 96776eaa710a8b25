//! The end of a source: the daemon waits for the readers that have not read everything.

use std::time::Instant;

use shm_proto::Error;
use shm_proto::internal::ring::standstill::{Limit, Standstill};

use super::Channel;
use crate::connections::Connections;

/// A reader that has not read everything.
#[derive(Debug)]
pub(super) struct Late {
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

impl Channel {
    /// Whether every reader has read everything; to be called repeatedly until it has. Evicts a reader that has not moved for
    /// `evict_after`, as the writer would.
    pub(crate) fn is_drained(&mut self, connections: &mut Connections, now: Instant) -> bool {
        let shot = match self.segment.snapshot() {
            Ok(shot) => shot,
            // The header could not be read this time; the next call may succeed.
            Err(Error::System { source, .. }) if source.kind() == std::io::ErrorKind::ResourceBusy => return false,
            Err(_) => return true,
        };
        let limit = Limit::new(self.geometry.evict_after_ms);
        let mut over = Vec::new();
        let mut drained = true;
        for (&number, reader) in self.readers.iter().filter(|(_, reader)| !reader.evicted) {
            let cursor = reader.cursor();
            if cursor.is_some_and(|cursor| cursor >= shot.tail.pos) {
                continue;
            }
            drained = false;
            let late = self.late.entry(number).or_insert_with(|| Late::new(cursor, now));
            if late.look(cursor, now, limit) {
                reader.ask();
            }
            if late.standstill.is_over(limit) {
                let behind = cursor.map_or(0, |cursor| shot.tail.pos - cursor);
                over.push((number, late.standstill.stood_ns() / 1_000_000, behind));
            }
        }
        for (number, stood, behind) in over {
            let reason = format!("it held the end up for {stood} ms without reading, {behind} bytes behind");
            self.mark_evicted(connections, number, &reason, "daemon");
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
