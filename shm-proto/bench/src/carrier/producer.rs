//! The producer of a pipeline, which feeds whole programs.

use std::fs::File;
use std::io::Write;

use shm_proto::Error;
use shm_proto::internal::os::clock::monotonic_ns;

use crate::job::{Job, Parent};
use crate::outcome::Measured;
use crate::{Result, payload};

/// Writes chunks into a pipe, as fast as they are taken.
pub(super) fn produce(job: &Job, parent: &mut Parent) -> Result<()> {
    let mut to = File::from(parent.take_fd()?);
    let mut chunk = payload::template(job.case.size_bytes);
    parent.ready()?;
    let start = monotonic_ns();
    let mut messages = 0;
    let goes_on = |messages| match job.messages {
        Some(most) => messages < most,
        None => monotonic_ns() - start < job.duration_ns,
    };
    while goes_on(messages) {
        payload::set(&mut chunk, messages);
        to.write_all(&chunk).map_err(|e| Error::system("write to the pipeline", e))?;
        messages += 1;
    }
    // The end of what the other programs read.
    drop(to);
    // The start instead of a duration: the end is when the last reader has written everything out.
    parent.done(Measured { messages, elapsed_ns: start, ..Measured::default() })
}
