//! What every floor may meet: a failed system call, and a peer that breaks the protocol. What a role can meet is on the role's
//! own floor.

use std::io;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

/// A result of the operating system's floor.
pub(crate) type Result<T, E = SystemError> = std::result::Result<T, E>;

/// A system call failed.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}{}", numbers(source))]
#[non_exhaustive]
pub struct SystemError {
    /// What was tried, on which object, with which numbers.
    pub action: String,
    /// The system's reason.
    pub source: io::Error,
}

/// What a system's reason leaves out: which limit it is, and how to raise it.
fn numbers(source: &io::Error) -> String {
    if source.raw_os_error() != Some(Errno::EMFILE as i32) {
        return String::new();
    }
    let limit =
        getrlimit(Resource::RLIMIT_NOFILE).map_or_else(|_| "all".to_owned(), |(limit, _)| format!("all {limit}"));
    format!("; {limit} descriptors that this process may have are open, raise the limit (ulimit -n, LimitNOFILE=)")
}

impl SystemError {
    /// A failed system call: `action` says what was tried on which object.
    pub fn new(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        SystemError { action: action.into(), source: source.into() }
    }

    /// The kind of the system's reason.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// What the other side of a socket sent, a line or a descriptor, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The connection failed, or a received descriptor could not be examined.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The other side broke the protocol: too long, not JSON, descriptors missing.
    #[error("control protocol: {0}")]
    Broken(String),
    /// The other side speaks another version of the protocol.
    #[error(
        "control protocol: the other side speaks version {theirs}, this program version {ours}; use programs of one release"
    )]
    Version {
        /// The version in the line received.
        theirs: u64,
        /// The version spoken here.
        ours: u32,
    },
}

/// What a call that may not wait would have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Blocked {
    /// The readers have to give space back.
    #[error("is full: {used} of {capacity} bytes are not read yet")]
    Full {
        /// Bytes that some reader still needs.
        used: u64,
        /// Present capacity in bytes.
        capacity: u64,
    },
    /// The daemon has been asked for more capacity.
    #[error("is growing: a message needs {needed} bytes of capacity, there are {capacity}")]
    Growing {
        /// Capacity that would do, in bytes.
        needed: u64,
        /// Present capacity in bytes.
        capacity: u64,
    },
    /// More readers have to attach: the channel's `wait_readers`.
    #[error("waits for {}: {attached} attached", counted(*wanted as u64, "reader"))]
    Readers {
        /// Readers that are attached and have chosen their start.
        attached: usize,
        /// The channel's `wait_readers`.
        wanted: usize,
    },
}

/// A count and its noun: `1 message`, `2 messages`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
