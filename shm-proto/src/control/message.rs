//! The messages on the control socket, as types. serde makes the JSON.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::log::LogEntry;
use super::stat::{ChannelStat, Summary};
use crate::handoff::Names;
use crate::name::ChannelName;
use crate::ring::geometry::{Geometry, first_layout};

/// One line on the socket: the protocol's version beside the content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`VERSION`](super::VERSION).
    pub v: u32,
    /// The content, its fields on the same level as `v`.
    #[serde(flatten)]
    pub body: T,
}

/// What a client asks. `channel` may be left out while the daemon has exactly one.
///
/// Programs only make requests, so a new kind of request breaks no program. The daemon matches on every kind, so the compiler
/// finds a kind that it does not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Are you there, and who are you?
    Ping,
    /// Names and a line of facts of every channel the client may see.
    List,
    /// Everything about one channel, or about all of them when none is named.
    Stat {
        /// Which channel; all when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
    },
    /// Become a reader.
    Attach {
        /// Which channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
        /// The program's name as it wants to be shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<String>,
        /// The layout of segments that the program understands.
        #[serde(default = "first_layout")]
        layout: u32,
    },
    /// Borrow the writer role.
    Publish {
        /// Which channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
        /// The program's name as it wants to be shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<String>,
        /// The layout of segments that the program understands.
        #[serde(default = "first_layout")]
        layout: u32,
    },
    /// Stay a reader, of the daemon that was started after the reader's daemon died. The reader's page comes with it.
    ResumeReader {
        /// Which channel.
        channel: ChannelName,
        /// The program's name as it wants to be shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<String>,
        /// The layout of segments that the program understands.
        #[serde(default = "first_layout")]
        layout: u32,
        /// The segment that it reads, or the last one that it was told of.
        instance: u64,
        /// The bits of its control word that count moves, as they are when it has gone to that segment.
        moves: u32,
    },
    /// Keep the writer role, under the daemon that was started after the writer's daemon died. The segment, by the descriptor
    /// that the writer was lent, and the lease page come with it.
    ResumeWriter {
        /// Which channel.
        channel: ChannelName,
        /// The program's name as it wants to be shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<String>,
        /// The layout of segments that the program understands.
        #[serde(default = "first_layout")]
        layout: u32,
        /// The segment that it writes.
        instance: u64,
        /// The capacity that it was allowed last, in bytes.
        capacity: u64,
    },
    /// Change the capacity.
    Resize {
        /// Which channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
        /// The capacity asked for, in bytes.
        bytes: u64,
    },
    /// Detach a reader by its number in `stat`.
    Evict {
        /// Which channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
        /// The reader's number.
        reader: u32,
    },
    /// Read the configuration again. For the daemon's own user and root.
    Reload,
    /// Execute the daemon's file anew, in the same process. For the daemon's own user and root. The answer comes from the new
    /// program.
    Reexec,
    /// The newest operations, as far as the client may see their channels.
    Log {
        /// Only entries of this channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
        /// Only entries with a number above this one.
        #[serde(default)]
        since: u64,
        /// At most this many entries, the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<u32>,
        /// Afterwards one [`LogEntry`] per line as operations happen, until the connection closes.
        #[serde(default)]
        follow: bool,
    },
    /// A request that this version does not know, from a newer client. It is refused, and the connection stays usable.
    #[serde(other)]
    Unknown,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The request was carried out.
    Ok(Done),
    /// The request was refused, and why.
    Error(Refusal),
}

/// The result of each request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Done {
    /// To `ping`.
    Ping(Pong),
    /// To `list`.
    List(Vec<Summary>),
    /// To `stat`.
    Stat(Vec<ChannelStat>),
    /// To `attach`; three descriptors come with it: segment, page, bell. To `resume_reader`; the bell comes with it.
    Attach(Attached),
    /// To `attach` on a handoff channel; one descriptor comes with it, the page. The objects are opened by name.
    Handoff(HandoffAttached),
    /// To `publish`; two descriptors come with it: segment, lease page. To `resume_writer`; none come with it.
    Publish(Lent),
    /// To `resize`.
    Resize(Resized),
    /// To `evict`.
    Evict {},
    /// To `reload`.
    Reload(Reloaded),
    /// To `reexec`.
    Reexec(Reexecuted),
    /// To `log`.
    Log(Vec<LogEntry>),
}

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

/// A reader's attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attached {
    /// The reader's number, as `stat` shows it.
    pub reader: u32,
    /// The channel's fixed facts.
    pub geometry: Geometry,
}

impl Attached {
    /// The attachment of the reader with this number.
    #[must_use]
    pub fn new(reader: u32, geometry: Geometry) -> Self {
        Attached { reader, geometry }
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
}

impl HandoffAttached {
    /// The attachment of the reader with this number, without the limits.
    #[must_use]
    pub fn new(reader: u32, channel: ChannelName, objects: Names) -> Self {
        HandoffAttached { reader, channel, objects, max_message: 0, ack_timeout_ms: 0 }
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
}

impl Lent {
    /// The writer role of a channel with this capacity, all of which has memory behind it.
    #[must_use]
    pub fn new(geometry: Geometry, capacity: u64) -> Self {
        Lent { geometry, reserved: capacity, capacity }
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
