//! One file per command: its arguments, its help, its work.

pub(crate) mod bench;
pub(crate) mod complete;
pub(crate) mod completions;
pub(crate) mod create;
pub(crate) mod doctor;
pub(crate) mod evict;
pub(crate) mod handoff;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod manual;
pub(crate) mod metrics;
pub(crate) mod read;
pub(crate) mod reexec;
pub(crate) mod reload;
pub(crate) mod remove;
pub(crate) mod resize;
pub(crate) mod stat;
pub(crate) mod top;
pub(crate) mod write;

use shm_proto::Done;

use crate::error::{Failure, note};

/// Why a list is empty, perhaps.
const NO_CHANNEL: &str = "no channel here that this user may read, write or administer";

/// An empty list is not an error, but gets an explanation: the daemon lists only the channels that this user may use.
fn note_if_none<T>(channels: &[T]) {
    if channels.is_empty() {
        note(NO_CHANNEL);
    }
}

/// The error for an answer that does not match the request.
fn unexpected(request: &str, done: &Done) -> Failure {
    Failure::Other(format!("control protocol: the daemon answered {request} with {done:?}"))
}
