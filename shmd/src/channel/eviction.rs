//! Whether a reader stays, and what its eviction takes: (state, event) -> (state, actions). Pure: no page, no connection, no
//! clock.
//!
//! | who evicts | when |
//! |---|---|
//! | the writer, in its own process | the reader holds the writer up, by [the same rule](shm_proto::internal::ring::standstill) as here, or cannot be served |
//! | the daemon | the reader holds the end of a source up, or cannot be told of a move |
//! | a user | an administrator of the channel asks for it |

use std::time::Instant;

use shm_proto::internal::ring::standstill::{Limit, Standstill};

use crate::peer::printable;

/// Who evicts a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By<'a> {
    Writer,
    Daemon,
    User(&'a str),
}

impl By<'_> {
    /// For the log.
    pub(super) fn name(self) -> String {
        match self {
            By::Writer => "writer".to_owned(),
            By::Daemon => "daemon".to_owned(),
            By::User(name) => printable(name),
        }
    }
}

/// What an eviction takes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The reader is told why, and is woken.
    Tell,
    /// The reader's user waits before the next attachment.
    Penalise,
    /// The log says who evicted it, and why.
    Log,
    /// Nobody serves the reader any more: a ring's writer forgets it, and a handoff closes its connection.
    StopServing,
}

/// What the end of a source does about a reader that has not read everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Waits for it.
    Wait,
    /// Asks it to publish its cursor after its current message, and waits.
    Ask,
    /// Evicts it, for this reason.
    Evict(String),
}

/// How one reader stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// What it reads may be overwritten.
    evicted: bool,
    /// It has not read everything at the end of a source.
    late: Option<Late>,
}

/// A reader that the end of a source waits for.
#[derive(Debug)]
struct Late {
    /// The cursor at the last look.
    cursor: Option<u64>,
    /// When the last look was.
    at: Instant,
    standstill: Standstill,
}

impl Standing {
    /// Whether it was evicted by the daemon, or on its word.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted
    }

    /// It is evicted. A reader is evicted once.
    pub(super) fn evict(&mut self, by: By<'_>) -> Vec<Action> {
        if std::mem::replace(&mut self.evicted, true) {
            return Vec::new();
        }
        let mut actions = vec![Action::Tell, Action::Penalise, Action::Log];
        // A writer that evicts does not wait for the reader any more.
        actions.extend((by != By::Writer).then_some(Action::StopServing));
        actions
    }

    /// The end of a source finds its cursor before `tail`. To be called repeatedly: only time in which it does not move counts.
    pub(super) fn is_late(&mut self, cursor: Option<u64>, tail: u64, now: Instant, limit: Limit) -> Verdict {
        let late = self.late.get_or_insert_with(|| Late { cursor, at: now, standstill: Standstill::default() });
        let passed = now.saturating_duration_since(std::mem::replace(&mut late.at, now));
        if std::mem::replace(&mut late.cursor, cursor) != cursor {
            late.standstill.moved();
        }
        let ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        let ask = late.standstill.waited(ns.min(limit.most_between_looks_ns()), limit);
        if late.standstill.is_over(limit) {
            let behind = cursor.map_or(0, |cursor| tail - cursor);
            let stood = late.standstill.stood_ns() / 1_000_000;
            return Verdict::Evict(format!("it held the end up for {stood} ms without reading, {behind} bytes behind"));
        }
        if ask { Verdict::Ask } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_reader_is_evicted_once_and_a_writer_that_did_it_need_not_be_told() {
        for by in [By::Daemon, By::User("me")] {
            let mut standing = Standing::default();
            assert!(!standing.is_evicted());
            assert_eq!(standing.evict(by), [Action::Tell, Action::Penalise, Action::Log, Action::StopServing]);
            assert!(standing.is_evicted());
            assert_eq!((standing.evict(by), standing.evict(By::Writer)), (Vec::new(), Vec::new()));
        }
        let mut standing = Standing::default();
        assert_eq!(standing.evict(By::Writer), [Action::Tell, Action::Penalise, Action::Log]);
        assert_eq!(standing.evict(By::Daemon), []);
    }

    #[test]
    fn a_reader_has_to_stand_still_for_the_whole_time_after_it_was_asked() {
        let (limit, start, mut standing) = (Limit::new(1000), Instant::now(), Standing::default());
        let mut look =
            |ms: u64, cursor: u64| standing.is_late(Some(cursor), 100, start + Duration::from_millis(ms), limit);
        assert_eq!(look(0, 8), Verdict::Wait);
        assert_eq!(look(50, 8), Verdict::Wait);
        assert_eq!(look(100, 8), Verdict::Ask);
        // The reader moves just in time, and the time starts again.
        assert_eq!(look(1090, 16), Verdict::Ask);
        for ms in (1190..2070).step_by(20) {
            assert!(!matches!(look(ms, 16), Verdict::Evict(_)), "{ms}");
        }
        // However long the time between two looks is.
        assert_eq!(look(1_000_000, 24), Verdict::Ask);
        assert_eq!(look(2_000_000, 24), Verdict::Ask);
        assert_eq!(look(3_000_000, 24), Verdict::Ask);
        assert_eq!(look(3_001_000, 24), Verdict::Ask);
        let reason = "it held the end up for 1000 ms without reading, 76 bytes behind";
        assert_eq!(look(3_002_000, 24), Verdict::Evict(reason.to_owned()));
    }

    #[test]
    fn without_a_limit_a_reader_is_asked_and_stays() {
        let (limit, start, mut standing) = (Limit::new(0), Instant::now(), Standing::default());
        for ms in (0..100_000).step_by(100) {
            let verdict = standing.is_late(None, 100, start + Duration::from_millis(ms), limit);
            assert_eq!(verdict, if ms == 0 { Verdict::Wait } else { Verdict::Ask }, "{ms}");
        }
    }
}
