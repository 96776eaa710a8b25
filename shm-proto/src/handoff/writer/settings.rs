//! The settings of a writer, and its counters.

use std::time::Duration;

#[cfg(doc)]
use super::Writer;
use crate::handoff::Names;
use crate::handoff::layout::{HEADER_SIZE, PAGE};

/// The settings of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The objects' names.
    pub names: Names,
    /// Permission bits of all three objects, whatever the umask is. Both sides need to read and write.
    pub mode: u32,
    /// The group of the objects; `None` is the group of the process.
    pub gid: Option<u32>,
    /// The segment's length at the start, in bytes; rounded up to whole pages.
    pub capacity: u64,
    /// The largest length of the segment, in bytes; rounded down to whole pages.
    pub max_capacity: u64,
    /// The largest message, in bytes; at most `max_capacity` less [`HEADER_SIZE`].
    pub max_message: u64,
    /// Whether a message that is not acknowledged in time is dropped, and not offered again.
    pub drop_late: bool,
    /// How long an acknowledgement may take: from when a reader took the message until it is offered again, or from when the message
    /// was offered until it is dropped.
    pub ack_timeout: Duration,
    /// Whether a message that the writer before this one has left on offer stays on offer, until [`Writer::take_up`] looks at it.
    /// Otherwise it is withdrawn.
    pub keep_offer: bool,
}

impl Settings {
    /// One page at the start and at most 256 MiB. The writer offers a message again after a second and never drops it. Only the
    /// owner has access.
    #[must_use]
    pub fn new(names: Names) -> Self {
        let max_capacity = 256 << 20;
        Self {
            names,
            mode: 0o600,
            gid: None,
            capacity: PAGE,
            max_capacity,
            max_message: max_capacity - HEADER_SIZE,
            drop_late: false,
            ack_timeout: Duration::from_secs(1),
            keep_offer: false,
        }
    }
}

/// Where a writer's objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// There were no objects.
    Created,
    /// A writer that has ended left them. Readers that wait on them go on.
    Adopted {
        /// Bytes of a message that was on offer and that no reader has read. It has been withdrawn, unless the settings say to
        /// [keep](Settings::keep_offer) it.
        pending: Option<u64>,
    },
    /// Stale objects that could not be used were removed.
    Replaced,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages acknowledged.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Times that a message was offered again because a reader took it and did not acknowledge it.
    pub offered_again: u64,
    /// Messages given up.
    pub dropped: u64,
    /// Times that a peer died while it held the mutex, and the mutex was recovered.
    pub recovered: u64,
    /// Times that the mutex had to be initialised again.
    pub repaired: u64,
    /// Posts of `avail` and `done` that belonged to no message.
    pub stray_posts: u64,
    /// Changes of the segment's length.
    pub resizes: u64,
}
