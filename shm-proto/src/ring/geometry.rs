//! The facts about a channel that its two sides must agree on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::layout::{FIRST_LAYOUT, KNOWN_FEATURES, LAYOUT_VERSION};
use super::record::{LEAST_ALIGN, PUBLISH_TIMES, Strides};
use crate::name::ChannelName;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the oldest message that is still whole.
    Oldest,
    /// At the first message published after attaching.
    #[default]
    New,
}

/// What happens when a message does not fit and the channel cannot grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The writer waits for the slowest reader; no message is lost.
    #[default]
    Block,
    /// The new message is dropped and counted.
    Drop,
    /// The oldest messages are overwritten. A reader that was lapped is told how many messages it lost.
    Overwrite,
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            OnFull::Block => "block",
            OnFull::Drop => "drop",
            OnFull::Overwrite => "overwrite",
        })
    }
}

/// The fixed facts about a channel, agreed on when a peer attaches. Identity, sizes, alignment and `on_full` are also
/// in the segment's header, which is checked against this structure. The rest is for the writer, and a reload may
/// change it ([`ToWriter::Policy`](super::link::ToWriter::Policy)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Geometry {
    /// The channel's name.
    pub channel: ChannelName,
    /// The version of the segment's layout.
    #[serde(default = "first_layout")]
    pub layout: u32,
    /// Features of the records beyond that layout, as bits.
    #[serde(default)]
    pub features: u64,
    /// The identity of this segment: a new random number for every segment.
    pub instance: u64,
    /// The instance of the channel's first segment. The numbers of messages continue from one segment to the next of
    /// the same lineage.
    pub lineage: u64,
    /// The largest capacity of the data area in bytes. Peers map this many bytes, and the header.
    pub max_capacity: u64,
    /// Largest message in bytes.
    pub max_message: u64,
    /// Alignment of every payload in bytes: a power of two from 16 to 4096.
    pub align: u32,
    /// What happens when the ring is full.
    pub on_full: OnFull,
    /// Every publish waits until all attached readers have read.
    pub ack: bool,
    /// The longest such wait, in milliseconds.
    pub ack_timeout_ms: u64,
    /// A reader is evicted if it passes no message for this many milliseconds while a publish waits for it or messages
    /// are dropped because of it; 0 for never.
    pub evict_after_ms: u64,
    /// Publishing waits while fewer readers than this are attached.
    pub wait_readers: u32,
    /// The largest number of readers at a time.
    pub max_readers: u32,
    /// The reader, not the writer, pays for the full barrier (`membarrier`).
    pub asymmetric: bool,
    /// A peer that maps the segment immediately enters the existing memory into its page table.
    #[serde(default)]
    pub prefault: bool,
    /// The only reader is a part of the daemon, which hands every message over. When the daemon dies, the writer gives up
    /// nothing that was not handed over, and the reader of the next daemon continues there.
    #[serde(default)]
    pub relayed: bool,
}

/// The layout of a peer that does not state one.
pub(crate) fn first_layout() -> u32 {
    FIRST_LAYOUT
}

impl Geometry {
    /// A channel in its first segment: payloads at multiples of 16, at most 64 readers, a writer that waits for the
    /// slowest of them without a time limit, and no other features.
    #[must_use]
    pub fn new(channel: ChannelName, instance: u64, max_capacity: u64, max_message: u64) -> Self {
        Geometry {
            channel,
            layout: LAYOUT_VERSION,
            features: 0,
            instance,
            lineage: instance,
            max_capacity,
            max_message,
            align: LEAST_ALIGN as u32,
            on_full: OnFull::Block,
            ack: false,
            ack_timeout_ms: 1000,
            evict_after_ms: 0,
            wait_readers: 0,
            max_readers: 64,
            asymmetric: false,
            prefault: false,
            relayed: false,
        }
    }

    /// How many bytes records take in the ring.
    #[must_use]
    pub fn strides(&self) -> Strides {
        Strides::new(u64::from(self.align), self.features)
    }

    /// Whether each record has the time at which it was published.
    #[must_use]
    pub fn has_publish_times(&self) -> bool {
        self.features & PUBLISH_TIMES != 0
    }

    /// Why this library cannot use the segment, whatever it contains: the daemon is from another release.
    #[must_use]
    pub(crate) fn misfit(&self) -> Option<String> {
        let (theirs, ours) = (self.layout, LAYOUT_VERSION);
        if theirs != ours {
            return Some(format!(
                "the daemon's segment has layout {theirs}, and this program understands layout {ours}; use a program and a \
                 daemon of the same release"
            ));
        }
        let unknown = self.features & !KNOWN_FEATURES;
        (unknown != 0).then(|| {
            format!(
                "the daemon's segment of layout {theirs} has features {unknown:#x}, which this program does not know; use a \
                 program of the daemon's release"
            )
        })
    }
}
