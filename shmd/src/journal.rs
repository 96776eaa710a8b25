//! The operation log: one call writes the log line and keeps the entry for `shmctl log`.
//!
//! Like the log itself there is one for the process: threads and objects that know nothing of the daemon have something to
//! say, and the last words are said when most of the daemon is gone.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use log::Level;
use shm_proto::ChannelName;
use shm_proto::oplog::{Fields, LogEntry, Severity, Value};

use crate::rate_limit::LeftOut;
use crate::server::Peer;

/// The newest entries.
#[derive(Debug)]
struct Ring {
    entries: VecDeque<LogEntry>,
    most: usize,
    seq: u64,
}

static RING: Mutex<Ring> = Mutex::new(Ring { entries: VecDeque::new(), most: 1000, seq: 0 });

fn ring() -> MutexGuard<'static, Ring> {
    // What a thread that panicked has left is a list of entries all the same.
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    fn keep(&mut self, mut entry: LogEntry) {
        self.seq += 1;
        entry.seq = self.seq;
        self.entries.push_back(entry);
        self.trim();
    }

    fn trim(&mut self) {
        let over = self.entries.len().saturating_sub(self.most);
        self.entries.drain(..over);
    }

    fn after(&self, since: u64) -> impl Iterator<Item = &LogEntry> {
        let from = self.entries.partition_point(|entry| entry.seq <= since);
        self.entries.range(from..)
    }
}

/// Keeps this many entries from now on.
pub(crate) fn keep(most: u32) {
    let mut ring = ring();
    ring.most = most as usize;
    ring.trim();
}

/// How many entries are kept.
pub(crate) fn kept() -> usize {
    ring().most
}

/// The number of the newest entry; 0 before the first.
pub(crate) fn newest() -> u64 {
    ring().seq
}

/// The entries that are still there with a number above `since`, the oldest first.
pub(crate) fn after(since: u64) -> Vec<LogEntry> {
    ring().after(since).cloned().collect()
}

/// Something that happened; [`info`](Operation::info), [`warn`](Operation::warn) or [`error`](Operation::error) tell it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Operation {
    event: &'static str,
    channel: Option<ChannelName>,
    fields: Vec<(String, Value)>,
}

/// Begins an entry about `event`.
pub(crate) fn operation(event: &'static str) -> Operation {
    Operation { event, channel: None, fields: Vec::new() }
}

impl Operation {
    /// On this channel.
    pub(crate) fn on(mut self, channel: &ChannelName) -> Self {
        self.channel = Some(channel.clone());
        self
    }

    /// A number.
    pub(crate) fn number(mut self, key: &str, value: impl TryInto<u64>) -> Self {
        self.fields.push((key.to_owned(), Value::Number(value.try_into().unwrap_or(u64::MAX))));
        self
    }

    /// A text.
    pub(crate) fn text(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.fields.push((key.to_owned(), Value::Text(value.to_string())));
        self
    }

    /// Why.
    pub(crate) fn reason(self, reason: impl fmt::Display) -> Self {
        self.text("reason", reason)
    }

    /// Who.
    pub(crate) fn peer(self, peer: &Peer) -> Self {
        self.number("pid", peer.pid).text("user", &peer.user).text("program", &peer.program)
    }

    /// So many entries like this one were left out before it.
    pub(crate) fn left_out(self, left_out: LeftOut) -> Self {
        match left_out.count() {
            0 => self,
            n => self.number("left_out", n),
        }
    }

    /// The ordinary course of things.
    pub(crate) fn info(self) {
        self.tell(Level::Info, Severity::Info);
    }

    /// Something went other than it should.
    pub(crate) fn warn(self) {
        self.tell(Level::Warn, Severity::Warn);
    }

    /// Something failed.
    pub(crate) fn error(self) {
        self.tell(Level::Error, Severity::Error);
    }

    fn tell(self, level: Level, severity: Severity) {
        // A clock before 1970 is set wrong; the entry's number still says its place.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = LogEntry {
            seq: 0,
            time_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            severity,
            event: self.event.to_owned(),
            channel: self.channel,
            fields: Fields(self.fields),
        };
        log::log!(level, "{entry}");
        ring().keep(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LogEntry {
        LogEntry {
            seq: 0,
            time_ms: 0,
            severity: Severity::Info,
            event: "x".to_owned(),
            channel: None,
            fields: Fields::default(),
        }
    }

    #[test]
    fn the_ring_keeps_the_newest_and_numbers_go_on() {
        let mut ring = Ring { entries: VecDeque::new(), most: 3, seq: 0 };
        (0..5).for_each(|_| ring.keep(entry()));
        let numbers = |ring: &Ring, since| ring.after(since).map(|entry| entry.seq).collect::<Vec<_>>();
        assert_eq!(numbers(&ring, 0), [3, 4, 5]);
        assert_eq!(numbers(&ring, 4), [5]);
        assert!(numbers(&ring, 5).is_empty());
        ring.most = 1;
        ring.trim();
        assert_eq!(numbers(&ring, 0), [5]);
    }

    #[test]
    fn an_entry_tells_what_it_was_given() {
        let peer = Peer { pid: 7, user: "me".to_owned(), program: "cat".to_owned() };
        let before = newest();
        operation("attach").on(&"journal-test".parse().unwrap()).number("reader", 3u32).peer(&peer).info();
        let mine = after(before).into_iter().find(|e| e.channel.as_ref().is_some_and(|c| c.as_str() == "journal-test"));
        let entry = mine.unwrap();
        assert_eq!(entry.to_string(), "event=attach channel=journal-test reader=3 pid=7 user=me program=cat");
        assert!(entry.seq > before && entry.time_ms > 0);
    }
}
