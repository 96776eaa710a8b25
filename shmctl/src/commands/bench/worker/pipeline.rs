//! The producer of a pipeline: chunks into a pipe, as fast as they are taken.

use std::fs::File;
use std::io::Write;

use shm_proto::Error;
use shm_proto::internal::os::clock::monotonic_ns;

use super::{Job, Stand, payload};
use crate::commands::bench::outcome::Measured;
use crate::error::Result;

pub(super) fn produce(job: &Job, stand: &mut Stand) -> Result<Measured> {
    let mut to = File::from(stand.take_fd()?);
    let mut chunk = payload::template(job.case.size_bytes);
    stand.ready()?;
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
    // The start instead of a duration: the end is when the last reader has written everything out.
    Ok(Measured { messages, bytes: messages * job.case.size_bytes, elapsed_ns: start, ..Measured::default() })
}
