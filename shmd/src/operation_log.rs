//! The operation log: one call writes the log line and keeps the entry for `shmctl log`.
//!
//! There is one operation log per process, like the log itself: threads and objects without access to the daemon write
//! entries, too, and the last entries are written when most of the daemon is gone.

mod beginnings;
mod file;
mod saving;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use log::Level;
use shm_proto::ChannelName;
use shm_proto::internal::control::VERSION;
pub(crate) use shm_proto::internal::control::log::LogEvent;
use shm_proto::internal::control::log::{Fields, LogEntry, Severity, Value};

use beginnings::Beginnings;
pub(crate) use saving::{Saved, save_in, settle};

use crate::peer::Peer;
use crate::rate_limit::LeftOut;

/// Events that peers can cause again and again, by coming and going, by nonsense, or by standing still and going on.
const PASSING: [LogEvent; 10] = [
    LogEvent::Attach,
    LogEvent::Detach,
    LogEvent::Lend,
    LogEvent::Return,
    LogEvent::Resume,
    LogEvent::TurnedAway,
    LogEvent::Dismiss,
    LogEvent::Stalled,
    LogEvent::Recovered,
    LogEvent::Overflow,
];

/// An entry as it is sent. Written as JSON once, because it may be asked for a thousand times, a hundred thousand at once.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its number.
    pub(crate) seq: u64,
    /// The channel that it is about.
    pub(crate) channel: Option<ChannelName>,
    /// An object.
    json: Box<str>,
}

impl Kept {
    fn new(entry: LogEntry) -> Self {
        // Texts and numbers can always be written.
        let json = serde_json::to_string(&entry).unwrap_or_else(|e| unreachable!("{e}")).into();
        Self { seq: entry.seq, channel: entry.channel, json }
    }

    /// The entry as an object.
    fn json(&self) -> &str {
        &self.json
    }

    /// The line that a follower gets.
    pub(crate) fn line(&self) -> Vec<u8> {
        format!("{{\"v\":{VERSION},{}\n", &self.json[1..]).into_bytes()
    }
}

/// The line that answers a `log` request: the newest of these entries that `most` bytes have room for.
pub(crate) fn answer(entries: &[Arc<Kept>], most: usize) -> Vec<u8> {
    let mut bytes = 0;
    let fits = |entry: &&Arc<Kept>| {
        bytes += entry.json.len() + 1;
        bytes <= most
    };
    let count = entries.iter().rev().take_while(fits).count();
    let mut line = format!("{{\"v\":{VERSION},\"ok\":{{\"log\":[");
    for (number, entry) in entries[entries.len() - count..].iter().enumerate() {
        line.extend((number > 0).then_some(','));
        line.push_str(&entry.json);
    }
    line.push_str("]}}\n");
    line.into_bytes()
}

/// The newest entries. In a flood, entries about peers that come and go get half of the places, so that they do not push
/// everything else out.
#[derive(Debug)]
struct Ring {
    entries: VecDeque<Arc<Kept>>,
    passing: VecDeque<Arc<Kept>>,
    beginnings: Beginnings,
    most: usize,
    seq: u64,
}

static RING: Mutex<Ring> = Mutex::new(Ring::new(1000));

fn ring() -> MutexGuard<'static, Ring> {
    // After a panic of another thread, this is still a valid list of entries.
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ring {
    const fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), passing: VecDeque::new(), beginnings: Beginnings::new(), most, seq: 0 }
    }

    fn keep(&mut self, mut entry: LogEntry) {
        entry.seq = self.seq + 1;
        self.add(entry);
    }

    /// Keeps an entry that has a number.
    fn add(&mut self, entry: LogEntry) {
        self.seq = entry.seq;
        self.beginnings.note(&entry);
        let passes = PASSING.contains(&entry.event);
        if passes { &mut self.passing } else { &mut self.entries }.push_back(Arc::new(Kept::new(entry)));
        self.trim();
    }

    /// The entries of a daemon that died come before this one's own, with `died` in between. Nobody has been shown any yet.
    fn restore(&mut self, before: Vec<LogEntry>, died: LogEntry) {
        // What was written can be read.
        let own: Vec<LogEntry> = self.after(0).filter_map(|kept| serde_json::from_str(kept.json()).ok()).collect();
        *self = Self::new(self.most);
        before.into_iter().for_each(|entry| self.add(entry));
        [died].into_iter().chain(own).for_each(|entry| self.keep(entry));
    }

    fn trim(&mut self) {
        while self.entries.len() + self.passing.len() > self.most {
            let share = self.most.div_ceil(2);
            let older = self.passing.front().map(|entry| entry.seq) < self.entries.front().map(|entry| entry.seq);
            let passing = self.passing.len() > share || (!self.passing.is_empty() && older) || self.entries.is_empty();
            if passing { &mut self.passing } else { &mut self.entries }.pop_front();
        }
        let oldest = self.after(0).next().map_or(self.seq + 1, |entry| entry.seq);
        self.beginnings.forget_before(oldest);
    }

    /// In their order.
    fn after(&self, since: u64) -> impl Iterator<Item = &Arc<Kept>> {
        let from = |entries: &VecDeque<Arc<Kept>>| entries.partition_point(|entry| entry.seq <= since);
        let mut entries = self.entries.range(from(&self.entries)..).peekable();
        let mut passing = self.passing.range(from(&self.passing)..).peekable();
        std::iter::from_fn(move || match (entries.peek(), passing.peek()) {
            (Some(entry), Some(other)) if entry.seq < other.seq => entries.next(),
            (Some(_), None) => entries.next(),
            _ => passing.next(),
        })
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
pub(crate) fn after(since: u64) -> Vec<Arc<Kept>> {
    ring().after(since).cloned().collect()
}

/// The numbers of the first entries about these channels: what is before may be about somebody else's channel of the same name.
pub(crate) fn beginnings<'c>(channels: impl Iterator<Item = &'c ChannelName>) -> HashMap<ChannelName, u64> {
    let ring = ring();
    channels.map(|channel| (channel.clone(), ring.beginnings.of(channel))).collect()
}

/// Something that happened; [`info`](Operation::info), [`warn`](Operation::warn) or [`error`](Operation::error) tell it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Operation {
    event: LogEvent,
    channel: Option<ChannelName>,
    fields: Vec<(String, Value)>,
}

/// Begins an entry about `event`.
pub(crate) fn operation(event: LogEvent) -> Operation {
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

    /// The number of entries like this one that were left out before it.
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

    /// Something unusual happened.
    pub(crate) fn warn(self) {
        self.tell(Level::Warn, Severity::Warn);
    }

    /// Something failed.
    pub(crate) fn error(self) {
        self.tell(Level::Error, Severity::Error);
    }

    fn tell(self, level: Level, severity: Severity) {
        let entry = self.entry(severity);
        log::log!(level, "{entry}");
        ring().keep(entry);
        saving::told();
    }

    fn entry(self, severity: Severity) -> LogEntry {
        // A clock before 1970 is wrong; the entry's number still gives its place.
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut entry = LogEntry::new(severity, self.event);
        entry.time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        (entry.channel, entry.fields) = (self.channel, Fields(self.fields));
        entry
    }
}

#[cfg(test)]
mod tests {
    use shm_proto::Done;
    use shm_proto::internal::control::{Reply, decode};

    use super::*;

    fn entry(event: LogEvent) -> LogEntry {
        LogEntry::new(Severity::Info, event)
    }

    fn numbers(ring: &Ring, since: u64) -> Vec<u64> {
        ring.after(since).map(|entry| entry.seq).collect()
    }

    #[test]
    fn the_ring_keeps_the_newest_and_numbers_go_on() {
        let mut ring = Ring::new(3);
        (0..5).for_each(|_| ring.keep(entry(LogEvent::Reload)));
        assert_eq!(numbers(&ring, 0), [3, 4, 5]);
        assert_eq!(numbers(&ring, 4), [5]);
        assert!(numbers(&ring, 5).is_empty());
        ring.most = 1;
        ring.trim();
        assert_eq!(numbers(&ring, 0), [5]);
    }

    #[test]
    fn peers_that_come_and_go_push_out_no_more_than_half_of_the_rest() {
        let mut ring = Ring::new(10);
        ring.keep(entry(LogEvent::Create));
        (0..20).for_each(|_| ring.keep(entry(LogEvent::Attach)));
        // As long as there are few others, they may have every place.
        assert_eq!(numbers(&ring, 0), [1].into_iter().chain(13..=21).collect::<Vec<_>>());
        (0..8).for_each(|_| ring.keep(entry(LogEvent::Evict)));
        (0..200).for_each(|_| ring.keep(entry(LogEvent::Detach)));
        assert_eq!(numbers(&ring, 0), (25..=29).chain(225..=229).collect::<Vec<_>>());
        ring.keep(entry(LogEvent::Grow));
        assert_eq!(numbers(&ring, 226), [227, 228, 229, 230]);
        ring.most = 0;
        ring.trim();
        assert!(numbers(&ring, 0).is_empty());
    }

    #[test]
    fn what_a_dead_daemon_has_told_comes_first_and_numbers_go_on() {
        let mut ring = Ring::new(10);
        (0..2).for_each(|_| ring.keep(entry(LogEvent::Kept)));
        let numbered = |seq, event| {
            let mut numbered = entry(event);
            numbered.seq = seq;
            numbered
        };
        let before =
            vec![numbered(40, LogEvent::Reload), numbered(44, LogEvent::Attach), numbered(45, LogEvent::Reload)];
        ring.restore(before, entry(LogEvent::Died));
        assert_eq!(numbers(&ring, 0), [40, 44, 45, 46, 47, 48]);
        let events = |ring: &Ring| {
            let read = |kept: &Arc<Kept>| serde_json::from_str::<LogEntry>(kept.json()).unwrap().event;
            ring.after(0).map(read).collect::<Vec<_>>()
        };
        use LogEvent::{Attach, Died, Kept as Setting, Reload};
        assert_eq!(events(&ring), [Reload, Attach, Reload, Died, Setting.clone(), Setting]);
        let mut ring = Ring::new(2);
        ring.restore((1..10).map(|seq| numbered(seq, LogEvent::Reload)).collect(), entry(LogEvent::Died));
        assert_eq!(numbers(&ring, 0), [9, 10]);
    }

    #[test]
    fn an_entry_tells_what_it_was_given() {
        let peer = Peer { pid: 7, uid: 1, user: "me".to_owned(), program: "cat".to_owned() };
        let before = newest();
        operation(LogEvent::Attach).on(&"log-test".parse().unwrap()).number("reader", 3u32).peer(&peer).info();
        let kept = after(before);
        let mine = kept.iter().find(|e| e.channel.as_ref().is_some_and(|c| c.as_str() == "log-test")).unwrap();
        let line = String::from_utf8(mine.line()).unwrap();
        let entry: LogEntry = decode(&line).unwrap();
        assert_eq!(entry.to_string(), "event=attach channel=log-test reader=3 pid=7 user=me program=cat");
        assert!(entry.seq > before && entry.time_ms > 0);
    }

    #[test]
    fn an_answer_has_the_newest_entries_that_there_is_room_for() {
        let mut ring = Ring::new(100);
        (0..100).for_each(|_| ring.keep(entry(LogEvent::Reload)));
        let kept: Vec<_> = ring.after(0).cloned().collect();
        let numbers = |most: usize| {
            let line = String::from_utf8(answer(&kept, most)).unwrap();
            assert!(line.ends_with('\n') && line.len() <= most + 30, "{line}");
            match decode(&line).unwrap() {
                Reply::Ok(Done::Log(entries)) => entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(numbers(usize::MAX - 30), (1..=100).collect::<Vec<_>>());
        let three = kept[97..].iter().map(|entry| entry.json.len() + 1).sum::<usize>();
        assert_eq!(numbers(three), [98, 99, 100]);
        assert_eq!(numbers(three - 1), [99, 100]);
        assert_eq!(numbers(0), [0; 0]);
    }
}
