//! A source of the daemon's own, in `stat`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SourceKind;
use crate::control::words::travels_as_text;

/// A source of the daemon's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceStat {
    /// Its kind.
    pub kind: SourceKind,
    /// The path, or the command; nothing for `stdin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What it is doing; in JSON the words that [`SourceState`] is shown as.
    pub state: SourceState,
    /// Bytes read.
    pub bytes: u64,
    /// Messages published, with those dropped because the ring was full.
    pub messages: u64,
    /// Inputs and messages refused, failed attempts to open or start, and runs of a child that failed.
    pub errors: u64,
    /// The newest of these errors.
    pub last_error: Option<String>,
}

impl SourceStat {
    /// A source that has read nothing.
    #[must_use]
    pub fn new(kind: SourceKind, object: Option<String>, state: SourceState) -> Self {
        SourceStat { kind, object, state, bytes: 0, messages: 0, errors: 0, last_error: None }
    }
}

/// What a source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceState {
    /// Its thread has just been made.
    Starting,
    /// There is an input.
    Open,
    /// No writer has opened the FIFO.
    AwaitingWriter,
    /// After a message that cannot be taken, the source skips what comes until the writers close.
    PassingOver,
    /// Clients come and go.
    Listening {
        /// Connected now.
        clients: usize,
        /// The largest number of clients.
        most: usize,
    },
    /// The child runs.
    Running {
        /// Its process number.
        pid: u32,
    },
    /// The child has ended; the channel has not taken all of its output yet.
    Draining {
        /// The child's process number.
        pid: u32,
    },
    /// The child has ended and is started again.
    Restarting {
        /// Seconds until then, rounded up.
        seconds: u64,
    },
    /// Appended bytes are read.
    Following,
    /// The file is not there.
    AwaitingFile,
    /// The input cannot be opened; the last error says why.
    Retrying,
    /// There will be nothing more.
    Ended,
    /// The source had to give up; the last error says why.
    Failed,
    /// Words that this version does not know, from a newer daemon.
    Other(String),
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceState::Starting => f.write_str("starting"),
            SourceState::Open => f.write_str("open"),
            SourceState::AwaitingWriter => f.write_str("waiting for a writer"),
            SourceState::PassingOver => f.write_str("skipping the rest of a bad input"),
            SourceState::Listening { clients, most } => {
                write!(f, "listening, {clients} client{} of {most}", if *clients == 1 { "" } else { "s" })
            }
            SourceState::Running { pid } => write!(f, "running pid {pid}"),
            SourceState::Draining { pid } => write!(f, "pid {pid} has ended, and its output waits for readers"),
            SourceState::Restarting { seconds } => write!(f, "restarting in {seconds}s"),
            SourceState::Following => f.write_str("following"),
            SourceState::AwaitingFile => f.write_str("waiting for the file"),
            SourceState::Retrying => f.write_str("cannot open it, trying again"),
            SourceState::Ended => f.write_str("ended"),
            SourceState::Failed => f.write_str("failed"),
            SourceState::Other(words) => f.write_str(words),
        }
    }
}

impl From<String> for SourceState {
    /// The state that is shown as this text.
    fn from(text: String) -> Self {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
        let (first, second) = (numbers.next().unwrap_or(0u64), numbers.next().unwrap_or(0));
        let number = |n| usize::try_from(n).unwrap_or(0);
        let pid = u32::try_from(first).unwrap_or(0);
        let known = [
            SourceState::Starting,
            SourceState::Open,
            SourceState::AwaitingWriter,
            SourceState::PassingOver,
            SourceState::Listening { clients: number(first), most: number(second) },
            SourceState::Running { pid },
            SourceState::Draining { pid },
            SourceState::Restarting { seconds: first },
            SourceState::Following,
            SourceState::AwaitingFile,
            SourceState::Retrying,
            SourceState::Ended,
            SourceState::Failed,
        ];
        known.into_iter().find(|state| state.to_string() == text).unwrap_or(SourceState::Other(text))
    }
}

travels_as_text!(SourceState);
