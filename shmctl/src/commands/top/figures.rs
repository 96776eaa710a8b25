//! What there is to show, computed from what the daemon has said at two or more moments. Rates are differences of counters over the
//! time that was measured between two looks.

use std::collections::{BTreeMap, VecDeque};
use std::mem::take;
use std::time::{Duration, Instant};

use shm_proto::internal::control::log::LogEntry;
use shm_proto::internal::control::stat::{ChannelStat, Rate, ReaderStat, ReaderState};

use super::unread::Unread;
use crate::condition::{effect, is_full, name, slowest};
use crate::human::{age, nanos};

/// The largest number of points that a history keeps.
const POINTS: usize = 240;
/// The largest number of operations that are kept.
pub(super) const OPERATIONS: u32 = 100;

/// The figures as of the last look.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) channels: Vec<Channel>,
    pub(super) operations: VecDeque<LogEntry>,
    /// When that was.
    pub(super) at: Instant,
    /// The time since the look before; none at the first.
    pub(super) between: Option<Duration>,
    has_looked: bool,
}

/// A channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) stat: ChannelStat,
    /// Unknown at the first look, and when another segment has begun to count.
    pub(super) rate: Option<Rate>,
    pub(super) history: History,
    pub(super) readers: Vec<Reader>,
    pub(super) held: Option<Held>,
}

/// A reader of a channel.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) stat: ReaderStat,
    /// Messages per second.
    pub(super) rate: Option<f64>,
    pub(super) history: History,
    unread: Unread,
    /// Since when it has read nothing although there was something to read.
    still: Option<Since>,
    is_first_look: bool,
}

/// Who keeps a channel full, and what that does to it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The reader's number. None if no reader takes what a handoff channel offers.
    pub(super) reader: Option<u32>,
    /// With the reader's name a sentence: `holds the writer up`.
    pub(super) effect: &'static str,
    pub(super) since: Since,
    /// Since when this reader has kept the channel full, reading or not.
    full: Since,
}

/// When something was seen to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) at: Instant,
    /// It may have begun before: the first look showed it.
    pub(super) may_be_longer: bool,
}

/// How old a reader's oldest unread message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oldest {
    /// Nothing is unread, or nothing is known about its age.
    Unknown,
    /// As its publish time says.
    Exactly(Duration),
    /// As the counters of earlier looks say.
    AtLeast(Duration),
}

/// A rate at each look, where it is known.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Option<f64>>);

impl History {
    fn push(&mut self, rate: Option<f64>) {
        self.0.truncate(POINTS - 1);
        self.0.push_front(rate);
    }

    /// The points, the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = Option<f64>> {
        self.0.iter().copied()
    }
}

impl Figures {
    /// Before the first look.
    pub(super) fn new(at: Instant) -> Self {
        Figures { channels: Vec::new(), operations: VecDeque::new(), at, between: None, has_looked: false }
    }

    /// The daemon has just said this.
    pub(super) fn look(&mut self, stats: Vec<ChannelStat>, at: Instant) {
        let time = self.has_looked.then(|| at.saturating_duration_since(self.at));
        let before = take(&mut self.channels).into_iter().map(|channel| (channel.stat.channel.clone(), channel));
        let mut before: BTreeMap<_, _> = before.collect();
        let channel = |stat: ChannelStat| Channel::new(before.remove(&stat.channel), stat, time, at);
        self.channels = stats.into_iter().map(channel).collect();
        (self.at, self.between, self.has_looked) = (at, time, true);
    }

    /// The daemon has not answered.
    pub(super) fn miss(&mut self) {
        for channel in &mut self.channels {
            channel.history.push(None);
            channel.readers.iter_mut().for_each(|reader| reader.history.push(None));
        }
    }

    /// These operations have happened since the last look.
    pub(super) fn log(&mut self, entries: Vec<LogEntry>) {
        self.operations.extend(entries);
        let most = OPERATIONS as usize;
        self.operations.drain(..self.operations.len().saturating_sub(most));
    }
}

impl Channel {
    fn new(then: Option<Channel>, stat: ChannelStat, time: Option<Duration>, at: Instant) -> Self {
        let rate = time.zip(then.as_ref()).and_then(|(time, then)| {
            let messages = per_second(then.stat.messages, stat.messages, time)?;
            Some(Rate::new(messages, per_second(then.stat.bytes, stat.bytes, time)?))
        });
        let (mut history, before, held) = match then {
            Some(then) => (then.history, then.readers, Some(then.held)),
            None => Default::default(),
        };
        if held.is_some() {
            history.push(rate.map(|rate| rate.messages_per_s));
        }
        let which = |stat: &ReaderStat| (stat.reader, stat.pid);
        let mut before: BTreeMap<_, _> = before.into_iter().map(|reader| (which(&reader.stat), reader)).collect();
        let reader = |reader: &ReaderStat| Reader::new(before.remove(&which(reader)), reader.clone(), &stat, time, at);
        let readers: Vec<Reader> = stat.readers.iter().map(reader).collect();
        let held = Held::of(held, &stat, &readers, at);
        Channel { stat, rate, history, readers, held }
    }

    /// The reader with this number.
    pub(super) fn reader(&self, number: u32) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.stat.reader == number)
    }

    /// Who holds the writer up, in a sentence with the time.
    pub(super) fn blame(&self, at: Instant) -> Option<String> {
        let held = self.held.as_ref()?;
        let who = match held.reader {
            Some(number) => name(&self.reader(number)?.stat),
            None => "no reader".to_owned(),
        };
        Some(format!("{who} {}{}", held.effect, held.since.in_words(at)))
    }
}

impl Reader {
    fn new(then: Option<Reader>, stat: ReaderStat, channel: &ChannelStat, time: Option<Duration>, at: Instant) -> Self {
        let rate = time.zip(then.as_ref()).and_then(|(time, then)| per_second(then.stat.received, stat.received, time));
        let still = time.zip(then.as_ref()).and_then(|(time, then)| {
            let stands = then.stat.received == stat.received && then.stat.lag_messages > 0 && stat.lag_messages > 0;
            let begin = Since { at: at.checked_sub(time).unwrap_or(at), may_be_longer: then.is_first_look };
            stands.then(|| then.still.unwrap_or(begin))
        });
        let is_first_look = then.is_none();
        let (mut history, mut unread) = then.map(|then| (then.history, then.unread)).unwrap_or_default();
        if !is_first_look {
            history.push(rate);
        }
        unread.look(at, channel.messages, stat.lag_messages);
        Reader { stat, rate, history, unread, still, is_first_look }
    }

    /// The age of its oldest unread message.
    pub(super) fn oldest(&self, at: Instant) -> Oldest {
        match (self.stat.oldest_unread_ns, self.unread.since()) {
            (Some(ns), _) => Oldest::Exactly(Duration::from_nanos(ns)),
            (None, Some(since)) if since < at => Oldest::AtLeast(at.duration_since(since)),
            _ => Oldest::Unknown,
        }
    }
}

impl Held {
    /// `before`: what held the channel up at the look before; `None` at the first look.
    fn of(before: Option<Option<Held>>, stat: &ChannelStat, readers: &[Reader], at: Instant) -> Option<Held> {
        let is_first = before.is_none();
        let before = before.flatten();
        if let Some(handoff) = &stat.handoff {
            let offered = Duration::from_millis(handoff.on_offer_ms.filter(|_| handoff.stalled)?);
            let since = Since { at: at.checked_sub(offered).unwrap_or(at), may_be_longer: false };
            return Some(Held { reader: None, effect: "has acknowledged the message on offer", since, full: since });
        }
        let culprit = slowest(stat).filter(|_| is_full(stat))?;
        let reader = readers.iter().find(|reader| reader.stat.reader == culprit.reader)?;
        let begin = Since { at, may_be_longer: is_first };
        // Another program may have the number by now.
        let is_same = |held: &Held| held.reader == Some(culprit.reader) && !reader.is_first_look;
        let full = before.filter(is_same).map_or(begin, |held| held.full);
        let stands = reader.still.is_some() || culprit.state == ReaderState::Stalled;
        // A single look does not tell a reader that is slow from one that stands still.
        let effect = if is_first && !stands { "keeps the channel full" } else { effect(&stat.on_full, stands) };
        let since = reader.still.filter(|still| still.at > full.at).unwrap_or(full);
        Some(Held { reader: Some(culprit.reader), effect, since, full })
    }
}

impl Since {
    /// In a table, behind something: ` 12.0s`, ` >12.0s`. Nothing if this look is the first one to show it.
    pub(super) fn in_short(self, at: Instant) -> String {
        self.told(at, " ", " >")
    }

    /// In a sentence: ` for 12.0s`, ` for more than 12.0s`.
    fn in_words(self, at: Instant) -> String {
        self.told(at, " for ", " for more than ")
    }

    fn told(self, at: Instant, exactly: &str, more: &str) -> String {
        match self.time(at) {
            Duration::ZERO => String::new(),
            time => format!("{}{}", if self.may_be_longer { more } else { exactly }, duration(time)),
        }
    }

    /// The time until `at`.
    pub(super) fn time(self, at: Instant) -> Duration {
        at.saturating_duration_since(self.at)
    }
}

/// A duration for people.
pub(super) fn duration(time: Duration) -> String {
    age(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// The same for a time that is known to the nanosecond.
pub(super) fn exactly(time: Duration) -> String {
    nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// How fast a counter has grown. `None` if it has fallen: the counter of another segment or reader has begun at 0.
fn per_second(then: u64, now: u64, time: Duration) -> Option<f64> {
    let grown = now.checked_sub(then)?;
    (!time.is_zero()).then(|| grown as f64 / time.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests;
