//! What goes over the control socket, as types. The JSON is what serde makes of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::handoff::Names;
use crate::name::ChannelName;
use crate::oplog::LogEntry;
use crate::stat::{ChannelStat, Summary};

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
    },
    /// Borrow the writer role.
    Publish {
        /// Which channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
        /// The program's name as it wants to be shown.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<String>,
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
    /// The newest operations, as far as the client may see their channels.
    Log {
        /// Of this channel alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<ChannelName>,
        /// Those with a number above this one.
        #[serde(default)]
        since: u64,
        /// At most so many, the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<u32>,
        /// Then one [`LogEntry`] a line as they happen, until the connection closes.
        #[serde(default)]
        follow: bool,
    },
    /// A request that this version does not know, from a newer client. It is refused, and the connection stays usable.
    #[serde(other)]
    Unknown,
}

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
/// ([`ToWriter::Policy`](crate::ring::link::ToWriter::Policy)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// The channel's name.
    pub channel: ChannelName,
    /// The identity of this segment: random, new with every creation.
    pub instance: u64,
    /// The instance of the channel's first segment. Messages are numbered on from one segment to the next of the same lineage.
    pub lineage: u64,
    /// Largest capacity of the data area in bytes; what a peer maps, besides the header.
    pub max_capacity: u64,
    /// Largest message in bytes.
    pub max_message: u64,
    /// Alignment of every payload in bytes: a power of two from 8 to 4096.
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

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It worked.
    Ok(Done),
    /// It did not, and why.
    Error(Refusal),
}

/// The result of each request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// To `ping`.
    Ping(Pong),
    /// To `list`.
    List(Vec<Summary>),
    /// To `stat`.
    Stat(Vec<ChannelStat>),
    /// To `attach`; three descriptors come with it: segment, page, bell.
    Attach(Attached),
    /// To `attach` on a handoff channel; one descriptor comes with it, the page. The objects are opened by name.
    Handoff(HandoffAttached),
    /// To `publish`; two descriptors come with it: segment, lease page.
    Publish(Lent),
    /// To `resize`.
    Resize(Resized),
    /// To `evict`.
    Evict {},
    /// To `reload`.
    Reload(Reloaded),
    /// To `log`.
    Log(Vec<LogEntry>),
}

/// Who answers a `ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A reader's attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The reader's number, as `stat` shows it.
    pub reader: u32,
    /// The channel's fixed facts.
    pub geometry: Geometry,
}

/// A reader's attachment to a handoff channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The writer role, lent. Lines follow that name the readers; the lease page says while some are to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// The channel's fixed facts.
    pub geometry: Geometry,
    /// Bytes of the data area that have memory behind them now.
    pub reserved: u64,
    /// The capacity to use now.
    pub capacity: u64,
}

/// What became of a resize.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resized {
    /// Which channel.
    pub channel: ChannelName,
    /// Capacity before, in bytes.
    pub old: u64,
    /// Capacity asked for, in bytes.
    pub asked: u64,
    /// Capacity it is now, or will be, in bytes: what was asked for, rounded up to whole pages.
    pub new: u64,
    /// A shrink that takes effect when the readers have passed the memory to be given back.
    pub pending: bool,
}

/// What a new look at the configuration has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Channels that are new.
    pub created: Vec<ChannelName>,
    /// Channels that are no more; their readers were told.
    pub removed: Vec<ChannelName>,
    /// Settings that have changed.
    pub changed: Vec<Change>,
    /// Settings that are written differently now and stay as they were.
    pub kept: Vec<Change>,
}

/// One setting that is written differently now. Values are as the configuration writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Why it stays as it was, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What an attached reader tells the daemon on its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FromReader {
    /// What stands in the segment makes no sense. The daemon looks for itself before it believes that.
    Broken {
        /// What the reader has found, and where.
        reason: String,
    },
    /// A line that this version does not know, from a newer reader. The daemon passes over it.
    #[serde(other)]
    Unknown,
}

/// What the daemon tells an attached reader on its connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReaderEvent {
    /// The reader was evicted.
    Evicted {
        /// By whom and why.
        reason: String,
    },
    /// The channel is closing; what is in it can still be read.
    Closing {
        /// Why.
        reason: String,
    },
    /// The channel goes on in a new segment, whose read-only descriptor comes with this line. What stands in the old segment
    /// at or after the position is no message.
    Moved {
        /// The channel's facts, with the new segment's identity.
        geometry: Geometry,
        /// The position where the old segment ends and the new one begins.
        pos: u64,
        /// The number of the first message of the new segment.
        seq: u64,
        /// What was wrong with the old segment, if that is why the channel goes on in a new one. Messages may be missing then, nobody
        /// knows how many, and numbers are left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        broken: Option<String>,
    },
    /// A line that this version does not know, from a newer daemon. The reader passes over it.
    #[serde(other)]
    Unknown,
}
