//! What a channel is, as far as its two sides have to agree on it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::layout::{FIRST_LAYOUT, KNOWN_FEATURES, LAYOUT_VERSION};
use super::record::LEAST_ALIGN;
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
    /// The writer waits for the slowest reader; nothing is lost.
    #[default]
    Block,
    /// The new message is dropped and counted.
    Drop,
    /// The oldest messages are overwritten; a reader that was lapped learns how many it lost.
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

/// A channel's fixed facts, agreed at attach. Identity, sizes, alignment and `on_full` are in the segment's header, which is
/// checked against them; the rest is for the writer, and a reload may change it
/// ([`ToWriter::Policy`](super::link::ToWriter::Policy)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Geometry {
    /// The channel's name.
    pub channel: ChannelName,
    /// The version of the segment's layout.
    #[serde(default = "first_layout")]
    pub layout: u32,
    /// What records have beyond that layout, as bits.
    #[serde(default)]
    pub features: u64,
    /// The identity of this segment: random, new with every creation.
    pub instance: u64,
    /// The instance of the channel's first segment. Messages are numbered on from one segment to the next of the same lineage.
    pub lineage: u64,
    /// Largest capacity of the data area in bytes; what a peer maps, besides the header.
    pub max_capacity: u64,
    /// Largest message in bytes.
    pub max_message: u64,
    /// Alignment of every payload in bytes: a power of two from 16 to 4096.
    pub align: u32,
    /// What happens when the ring is full.
    pub on_full: OnFull,
    /// Every publish waits until all attached readers have read.
    pub ack: bool,
    /// The longest such a wait, in milliseconds.
    pub ack_timeout_ms: u64,
    /// In milliseconds: a reader is evicted if it passes no message for this long while publishing waits for it or messages are
    /// dropped because of it; 0 for never.
    pub evict_after_ms: u64,
    /// Publishing waits while fewer readers than this are attached.
    pub wait_readers: u32,
    /// Most readers at a time.
    pub max_readers: u32,
    /// The reader, not the writer, pays for the full barrier (`membarrier`).
    pub asymmetric: bool,
    /// Whoever maps the segment enters the memory that is there into its page table at once.
    #[serde(default)]
    pub prefault: bool,
}

/// The layout of a peer that does not name one.
pub(crate) fn first_layout() -> u32 {
    FIRST_LAYOUT
}

impl Geometry {
    /// A channel in its first segment: payloads at multiples of 16, a writer that waits for the slowest of at most 64 readers
    /// for as long as it takes, and nothing else.
    #[must_use]
    pub fn new(channel: ChannelName, instance: u64, max_capacity: u64, max_message: u64) -> Self {
        Geometry {
            channel,
            layout: LAYOUT_VERSION,
            features: KNOWN_FEATURES,
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
        }
    }

    /// Why this library cannot use the segment, whatever is in it: the daemon is of another release.
    #[must_use]
    pub fn misfit(&self) -> Option<String> {
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
