//! What the daemon answers to each request, as types.

use serde::{Deserialize, Serialize};

use crate::handoff::Names;
use crate::name::ChannelName;
use crate::ring::content::Content;
use crate::ring::geometry::Geometry;

/// Who answers a `ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pong {
    /// Always `shmd`.
    pub daemon: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process number.
    pub pid: u32,
    /// The prefix of its objects' names.
    pub prefix: String,
}

impl Pong {
    /// The answer of a daemon.
    #[must_use]
    pub fn new(version: String, pid: u32, prefix: String) -> Self {
        Pong { daemon: "shmd".to_owned(), version, pid, prefix }
    }
}

/// What a channel declares about its messages. The text of the schema comes as a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Declared {
    /// Encoding, and name, length and hash of the schema; nothing if the channel declares no content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl Declared {
    /// This content.
    #[must_use]
    pub fn new(content: Option<Content>) -> Self {
        Declared { content }
    }
}

/// A reader's attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attached {
    /// The reader's number, as `stat` shows it.
    pub reader: u32,
    /// The channel's fixed facts.
    pub geometry: Geometry,
    /// What the channel's messages are, if that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl Attached {
    /// The attachment of the reader with this number.
    #[must_use]
    pub fn new(reader: u32, geometry: Geometry) -> Self {
        Attached { reader, geometry, content: None }
    }
}

/// A reader's attachment to a handoff channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HandoffAttached {
    /// The reader's number, as `stat` shows it.
    pub reader: u32,
    /// The channel's name.
    pub channel: ChannelName,
    /// Where messages are handed over.
    pub objects: Names,
    /// Largest message in bytes.
    pub max_message: u64,
    /// How long a reader may take to acknowledge before the message is offered again or dropped, in milliseconds.
    pub ack_timeout_ms: u64,
    /// What the channel's messages are, if that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl HandoffAttached {
    /// The attachment of the reader with this number, without the limits.
    #[must_use]
    pub fn new(reader: u32, channel: ChannelName, objects: Names) -> Self {
        HandoffAttached { reader, channel, objects, max_message: 0, ack_timeout_ms: 0, content: None }
    }
}

/// The writer role, lent. Lines follow that name the readers. The lease page says whether more of these lines are to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lent {
    /// The channel's fixed facts.
    pub geometry: Geometry,
    /// Bytes of the data area that have memory behind them now.
    pub reserved: u64,
    /// The capacity to use now.
    pub capacity: u64,
    /// What the channel's messages are, if that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl Lent {
    /// The writer role of a channel with this capacity, all of which has memory behind it.
    #[must_use]
    pub fn new(geometry: Geometry, capacity: u64) -> Self {
        Lent { geometry, reserved: capacity, capacity, content: None }
    }
}

/// The result of a resize.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Resized {
    /// Which channel.
    pub channel: ChannelName,
    /// Capacity before, in bytes.
    pub old: u64,
    /// Capacity asked for, in bytes.
    pub asked: u64,
    /// The capacity now or soon, in bytes: what was asked for, rounded up to whole pages.
    pub new: u64,
    /// Whether this is a shrink that takes effect later, when the readers have left the memory that is to be given back.
    pub pending: bool,
}

impl Resized {
    /// About this channel, without the sizes.
    #[must_use]
    pub fn new(channel: ChannelName) -> Self {
        Resized { channel, old: 0, asked: 0, new: 0, pending: false }
    }
}

/// A channel that was made at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Created {
    /// Its name.
    pub channel: ChannelName,
    /// Its capacity, in bytes.
    pub capacity: u64,
    /// Its largest capacity, in bytes.
    pub max: u64,
    /// Whether the channel is made again when the daemon is started after a stop.
    pub kept: bool,
    /// Why the channel's source cannot be opened yet, if it cannot. The daemon tries again every second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_waits: Option<String>,
}

impl Created {
    /// A channel of this name and these sizes, which goes with the daemon.
    #[must_use]
    pub fn new(channel: ChannelName, capacity: u64, max: u64) -> Self {
        Created { channel, capacity, max, kept: false, source_waits: None }
    }
}

/// The daemon's file was executed anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reexecuted {
    /// The version of the program before.
    pub old: String,
    /// The version of the program that answers.
    pub new: String,
    /// The daemon's process number, which is the same.
    pub pid: u32,
}

impl Reexecuted {
    /// Of these versions, in this process.
    #[must_use]
    pub fn new(old: String, new: String, pid: u32) -> Self {
        Reexecuted { old, new, pid }
    }
}

/// The result of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reloaded {
    /// Channels that are new.
    pub created: Vec<ChannelName>,
    /// Channels that were removed. Their readers were told.
    pub removed: Vec<ChannelName>,
    /// Settings that have changed.
    pub changed: Vec<Change>,
    /// Settings that are written differently now, but were not changed.
    pub kept: Vec<Change>,
}

/// One setting that is written differently now. Values are as the configuration writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    /// Of this channel; of the daemon when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// The key.
    pub key: String,
    /// Its value before.
    pub old: String,
    /// The value that is written now.
    pub new: String,
    /// Why the setting was not changed, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Change {
    /// What is known of a key of the channel, or of the daemon.
    #[must_use]
    pub fn new(channel: Option<ChannelName>, key: &str, old: String, new: String, why: Option<String>) -> Self {
        Change { channel, key: key.to_owned(), old, new, why }
    }
}
