//! Why the daemon says no.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::ChannelName;

/// Kinds of refusal; each has one exit code in `shmctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request could not be understood.
    BadRequest,
    /// The daemon does not speak the version of the request.
    BadVersion,
    /// There is no channel of that name, or the request names none and there are several.
    NoSuchChannel,
    /// The peer's credentials do not allow it.
    NotPermitted,
    /// Another writer holds the role.
    WriterTaken,
    /// The channel has its largest number of readers, or the daemon its largest number of clients.
    TooMany,
    /// The channel's content is not what the program expects.
    OtherContent,
    /// The size asked for is outside the channel's bounds, or smaller than what is in use.
    OutOfRange,
    /// There is no memory for it.
    NoSpace,
    /// No reader of that number.
    NoSuchReader,
    /// There is a channel of that name already.
    ChannelExists,
    /// The channel is in the configuration, and only a reload removes it.
    Configured,
    /// The configuration, or that of a channel that was to be made, is bad; nothing was changed.
    BadConfig,
    /// The daemon is stopping, or another change is under way.
    Busy,
    /// Not yet: the user attaches, resizes, creates channels, or asks for the writer role or for schemas too often, or a reader of the
    /// user was evicted a moment ago. `retry_after_ms` says when.
    TryLater,
    /// Something failed inside the daemon.
    Internal,
    /// A kind that this version does not know, from a newer daemon. The message says what is the matter.
    #[serde(other)]
    Unknown,
}

impl ErrorKind {
    /// Whether the same request may succeed later without any change by an administrator.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        match self {
            ErrorKind::WriterTaken | ErrorKind::TooMany | ErrorKind::Busy | ErrorKind::TryLater => true,
            ErrorKind::BadRequest
            | ErrorKind::BadVersion
            | ErrorKind::NoSuchChannel
            | ErrorKind::NotPermitted
            | ErrorKind::OtherContent
            | ErrorKind::OutOfRange
            | ErrorKind::NoSpace
            | ErrorKind::NoSuchReader
            | ErrorKind::ChannelExists
            | ErrorKind::Configured
            | ErrorKind::BadConfig
            | ErrorKind::Internal
            | ErrorKind::Unknown => false,
        }
    }
}

/// Why the daemon said no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusal {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: the object, the numbers, the cause and what to do.
    pub message: String,
    /// The daemon's channels, where naming one would help.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<ChannelName>,
    /// The request may succeed after this many milliseconds, and not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// A refusal that names no channels and no time.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Refusal { kind, message: message.into(), channels: Vec::new(), retry_after_ms: None }
    }

    /// The same refusal, which names these channels.
    #[must_use]
    pub fn with_channels(self, channels: Vec<ChannelName>) -> Self {
        Refusal { channels, ..self }
    }

    /// The same refusal, which says that the request may succeed after this many milliseconds.
    #[must_use]
    pub fn with_retry_after_ms(self, millis: u64) -> Self {
        Refusal { retry_after_ms: Some(millis), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
