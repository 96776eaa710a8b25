//! What `stat` and `list` show, as data.
//!
//! The daemon computes ages and rates when it answers. It shows figures that a reader or a lent writer counts as the peer reports
//! them, clamped to what is possible. It decides nothing by these figures.
//!
//! A newer version may add fields. To make one of these values, call `new`, and set the fields that are known.

mod source;
#[cfg(test)]
mod tests;
mod words;

use serde::{Deserialize, Serialize};

pub use self::source::{SourceStat, SourceState};
pub use self::words::{FullPolicy, Mode, ReaderState, Right, SourceKind, WriterName, WriterRole, WriterState};
use crate::handoff::Names;
use crate::name::ChannelName;
use crate::ring::WaitStrategy;
use crate::ring::content::Content;
use crate::ring::delays::Delays;
use crate::ring::geometry::OnFull;

/// One channel in `list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Summary {
    /// The channel's name.
    pub channel: ChannelName,
    /// How it hands its messages over.
    pub mode: Mode,
    /// Present capacity in bytes.
    pub capacity: u64,
    /// Attached readers.
    pub readers: u32,
    /// Who holds the writer role.
    pub writer: WriterName,
    /// Rights of the asking peer.
    pub allowed: Vec<Right>,
    /// Who has made it at run time. Nothing for a channel of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<CreatedBy>,
    /// What its messages are, if that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl Summary {
    /// A channel without readers, to which the asking peer has no rights.
    #[must_use]
    pub fn new(channel: ChannelName, mode: Mode, writer: WriterName) -> Self {
        Summary { channel, mode, capacity: 0, readers: 0, writer, allowed: Vec::new(), created: None, content: None }
    }
}

/// Where a channel comes from that is not in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreatedBy {
    /// The user who has made it: a name, or a number where there is no name.
    pub user: String,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Whether it is made again when the daemon is started after a stop.
    pub kept: bool,
}

impl CreatedBy {
    /// Made by this user at this time.
    #[must_use]
    pub fn new(user: String, time_ms: u64, kept: bool) -> Self {
        CreatedBy { user, time_ms, kept }
    }
}

/// One channel in `stat`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelStat {
    /// The channel's name.
    pub channel: ChannelName,
    /// The segment's name for `shm_open`.
    pub segment: String,
    /// Who has made it at run time. Nothing for a channel of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<CreatedBy>,
    /// What its messages are, if that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// How it hands its messages over.
    pub mode: Mode,
    /// What happens when the ring is full.
    pub on_full: FullPolicy,
    /// Capacity in use now, in bytes.
    pub capacity: u64,
    /// Smallest capacity, in bytes.
    pub min: u64,
    /// Largest capacity, in bytes.
    pub max: u64,
    /// Bytes of the data area with memory behind them.
    pub reserved: u64,
    /// Memory that the segment takes in `/dev/shm` now, its header included, in bytes.
    pub memory: u64,
    /// Memory that all of the daemon's segments take now, in bytes.
    pub memory_total: u64,
    /// A capacity asked for that has not taken effect yet.
    pub pending: Option<u64>,
    /// Bytes that the slowest reader has not read yet.
    pub used: u64,
    /// Bytes that a reader starting at `oldest` would find.
    pub retained: u64,
    /// Largest message, in bytes.
    pub max_message: u64,
    /// Alignment of payloads, in bytes.
    pub align: u32,
    /// Whether messages have publish times.
    #[serde(default)]
    pub timestamps: bool,
    /// Messages published since the segment was made.
    pub messages: u64,
    /// Payload bytes published since the segment was made.
    pub bytes: u64,
    /// Messages per second, over the last second or more.
    pub messages_per_s: f64,
    /// Payload bytes per second, over the last second or more.
    pub bytes_per_s: f64,
    /// Over the last minute, or since the channel was made.
    pub last_minute: Rate,
    /// Over the last hour, or since the channel was made.
    pub last_hour: Rate,
    /// Messages dropped because the ring was full.
    pub dropped: u64,
    /// Messages overwritten before every attached reader had read them.
    pub overwritten: u64,
    /// Growths and shrinks that took effect.
    pub resizes: u64,
    /// Readers evicted.
    pub evicted: u64,
    /// Most readers at a time.
    pub max_readers: u32,
    /// A peer counts as stalled after this time without a sign of life, in milliseconds; 0 for never.
    pub stalled_after_ms: u64,
    /// The source that feeds the channel, as configured: `none`, `stdin`, `fifo:/PATH`, ...
    pub source: String,
    /// The state of the source; nothing if the channel has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<SourceStat>,
    /// What only a handoff channel has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handoff: Option<HandoffStat>,
    /// The present writer.
    pub writer: Option<WriterStat>,
    /// The attached readers.
    pub readers: Vec<ReaderStat>,
}

impl ChannelStat {
    /// A channel with this name and no figures.
    #[must_use]
    pub fn new(channel: ChannelName, mode: Mode, segment: String) -> Self {
        ChannelStat {
            channel,
            segment,
            created: None,
            content: None,
            mode,
            on_full: FullPolicy::Known(OnFull::default()),
            capacity: 0,
            min: 0,
            max: 0,
            reserved: 0,
            memory: 0,
            memory_total: 0,
            pending: None,
            used: 0,
            retained: 0,
            max_message: 0,
            align: 0,
            timestamps: false,
            messages: 0,
            bytes: 0,
            messages_per_s: 0.0,
            bytes_per_s: 0.0,
            last_minute: Rate::default(),
            last_hour: Rate::default(),
            dropped: 0,
            overwritten: 0,
            resizes: 0,
            evicted: 0,
            max_readers: 0,
            stalled_after_ms: 0,
            source: String::new(),
            input: None,
            handoff: None,
            writer: None,
            readers: Vec::new(),
        }
    }
}

/// The objects of a handoff channel, and what its peers did to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HandoffStat {
    /// Their names.
    pub objects: Names,
    /// Bytes of the message on offer.
    pub on_offer: Option<u64>,
    /// Milliseconds for which it has been on offer.
    pub on_offer_ms: Option<u64>,
    /// Milliseconds since the last acknowledgement, the sign of life of readers that the daemon does not know.
    pub last_ack_ms: Option<u64>,
    /// No reader has acknowledged the message on offer for `stalled_after`.
    pub stalled: bool,
    /// Times that a message was offered again because a reader took it and did not acknowledge it.
    pub offered_again: u64,
    /// Times that a peer died while it held the mutex, and the mutex was recovered.
    pub recovered: u64,
    /// Times that the mutex had to be initialised again.
    pub repaired: u64,
    /// Posts of the semaphores that belonged to no message.
    pub stray_posts: u64,
}

impl HandoffStat {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(objects: Names) -> Self {
        HandoffStat {
            objects,
            on_offer: None,
            on_offer_ms: None,
            last_ack_ms: None,
            stalled: false,
            offered_again: 0,
            recovered: 0,
            repaired: 0,
            stray_posts: 0,
        }
    }
}

/// An average over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rate {
    /// Messages a second.
    pub messages_per_s: f64,
    /// Payload bytes a second.
    pub bytes_per_s: f64,
}

impl Rate {
    /// This many messages and payload bytes per second.
    #[must_use]
    pub fn new(messages_per_s: f64, bytes_per_s: f64) -> Self {
        Rate { messages_per_s, bytes_per_s }
    }
}

/// The holder of the writer role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WriterStat {
    /// Process number.
    pub pid: u32,
    /// Program name.
    pub program: String,
    /// User name, or number where there is no name.
    pub user: String,
    /// What kind of writer it is.
    pub role: WriterRole,
    /// Whether it shows signs of life.
    pub state: WriterState,
    /// Milliseconds since the writer was last seen at work.
    pub heartbeat_ms: u64,
}

impl WriterStat {
    /// A writer that is active.
    #[must_use]
    pub fn new(role: WriterRole, pid: u32, program: String, user: String) -> Self {
        WriterStat { pid, program, user, role, state: WriterState::Active, heartbeat_ms: 0 }
    }
}

/// One attached reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReaderStat {
    /// Its number, for `evict`.
    pub reader: u32,
    /// Process number.
    pub pid: u32,
    /// Program name.
    pub program: String,
    /// User name, or number where there is no name.
    pub user: String,
    /// What it is doing.
    pub state: ReaderState,
    /// Messages not read yet.
    pub lag_messages: u64,
    /// Bytes not read yet, record headers included.
    pub lag_bytes: u64,
    /// Messages read.
    pub received: u64,
    /// Messages lost to overwriting.
    pub lost: u64,
    /// Milliseconds since the reader was last seen at work.
    pub heartbeat_ms: u64,
    /// How it waits for messages: a [`WaitStrategy`] as text, or a word that a newer version has.
    #[serde(default = "adaptive")]
    pub wait: String,
    /// What it says about itself, if it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// In a channel with publish times: nanoseconds since the oldest message was published that it has not read. Nothing if it has
    /// read everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_unread_ns: Option<u64>,
    /// In a channel with publish times: how long messages took to reach it. Nothing before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// How long messages took from publishing to receiving, since the reader attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Latency {
    /// The number of messages.
    pub messages: u64,
    /// Half of the messages took no longer than this, in nanoseconds, within 6 %.
    pub p50_ns: u64,
    /// The same for 90 of 100.
    pub p90_ns: u64,
    /// The same for 99 of 100.
    pub p99_ns: u64,
    /// The longest time.
    pub max_ns: u64,
}

impl Latency {
    /// What a reader has counted. `None` without messages.
    #[must_use]
    pub fn of(delays: &Delays) -> Option<Self> {
        let part = |part| delays.percentile(part);
        let messages = delays.count();
        Some(Latency { messages, p50_ns: part(0.5)?, p90_ns: part(0.9)?, p99_ns: part(0.99)?, max_ns: part(1.0)? })
            .filter(|_| messages > 0)
    }
}

fn adaptive() -> String {
    WaitStrategy::Adaptive.to_string()
}

impl ReaderStat {
    /// A reader that has received nothing and lost nothing.
    #[must_use]
    pub fn new(reader: u32, pid: u32, program: String, user: String, state: ReaderState) -> Self {
        ReaderStat {
            reader,
            pid,
            program,
            user,
            state,
            lag_messages: 0,
            lag_bytes: 0,
            received: 0,
            lost: 0,
            heartbeat_ms: 0,
            wait: adaptive(),
            status: String::new(),
            oldest_unread_ns: None,
            latency: None,
        }
    }
}
