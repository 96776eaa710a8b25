//! A file a command: its arguments, its help, its work.

pub(crate) mod bench;
pub(crate) mod evict;
pub(crate) mod handoff;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod read;
pub(crate) mod reload;
pub(crate) mod resize;
pub(crate) mod stat;
pub(crate) mod write;

use shm_proto::Done;

use crate::error::Failure;

/// Nothing to show is no error, but nobody should have to guess why: the daemon names only what this user may use.
fn note_if_none<T>(channels: &[T]) {
    if channels.is_empty() {
        eprintln!("shmctl: no channel here that this user may read, write or administer");
    }
}

/// For an answer to another question than the one that was asked.
fn unexpected(request: &str, done: &Done) -> Failure {
    Failure::Other(format!("control protocol: the daemon answered {request} with {done:?}"))
}
