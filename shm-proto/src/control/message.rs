//! The messages on the control socket, as types. serde makes the JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::answers::{Attached, Created, Declared, HandoffAttached, Lent, Pong, Reexecuted, Reloaded, Resized};
use super::log::LogEntry;
use super::stat::{ChannelStat, Summary};
use crate::name::ChannelName;
use crate::ring::content::Expected;
use crate::ring::geometry::first_layout;

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
    /// The text of a channel's schema.
    Schema {
        /// Which channel.
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
        /// What the program expects the messages to be; without it, anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Expected>,
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
        /// What the program expects the messages to be; without it, anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Expected>,
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
        /// What the program expects the messages to be; without it, anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Expected>,
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
        /// What the program expects the messages to be; without it, anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Expected>,
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
    /// Make a channel at run time. For root, the daemon's own user, and those whom the configuration lets (`create`).
    Create {
        /// The new channel.
        channel: ChannelName,
        /// Keys of the channel as in the configuration, with their values as text. What is left out has its default.
        #[serde(default)]
        keys: BTreeMap<String, String>,
        /// The channel is made again when the daemon is started after a stop.
        #[serde(default)]
        keep: bool,
    },
    /// Remove a channel that was made at run time. It is answered when the channel is gone.
    Remove {
        /// Which channel.
        channel: ChannelName,
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
    /// To `schema`; a descriptor comes with it if there is a text.
    Schema(Declared),
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
    /// To `create`.
    Create(Created),
    /// To `remove`.
    Remove {},
    /// To `reload`.
    Reload(Reloaded),
    /// To `reexec`.
    Reexec(Reexecuted),
    /// To `log`.
    Log(Vec<LogEntry>),
}
