//! What passes between the program that measures and its workers.
//!
//! A worker gets its job and descriptors over a Unix socket that is its standard input, makes its ends of the carrier, says
//! that it is ready, waits until all workers may begin, does its part, and says what it measured. It keeps its ends until all
//! workers are done with theirs.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shm_proto::internal::control::{Conn, Received, decode};
use shm_proto::internal::os::poll::readable;
use shm_proto::{ChannelName, Error};

use crate::outcome::Measured;
use crate::plan::Case;
use crate::{Failure, Result};

/// The channel that a reader answers on.
pub(crate) const BACK: &str = "back";
/// The longest line between parent and worker.
pub(crate) const MAX_LINE: usize = 64 << 10;

/// Which part of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sends; in a round trip, also measures the time.
    Writer,
    /// Receives.
    Reader,
}

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub case: Case,
    pub role: Role,
    /// The number of the reader, from 0.
    pub reader: u32,
    /// The processor to stay on.
    pub cpu: Option<usize>,
    /// The daemon's runtime directory, or for other libraries a directory of the run's own.
    pub dir: PathBuf,
    /// The prefix of the names of other libraries' objects.
    pub prefix: String,
    /// The channel from the writer to the readers.
    pub channel: Option<ChannelName>,
    /// Whether the reader answers each message; if it does not, a message for latency carries the time.
    pub answers: bool,
    /// The duration of the warm-up, which does not count.
    pub warm_up_ns: u64,
    pub duration_ns: u64,
    /// The number of messages to measure, instead of a duration.
    pub messages: Option<u64>,
    /// The time between single messages.
    pub pace_ns: u64,
    /// The time between the moments at which messages are due, in picoseconds; for a rate alone.
    pub interval_ps: u64,
}

/// From the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToWorker {
    /// Some descriptors come with this line.
    Descriptors {},
    /// What to do, after all descriptors.
    Job(Job),
    /// All workers are ready.
    Go {},
    /// All workers have said what they measured.
    End {},
}

/// To the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromWorker {
    /// May begin.
    Ready {},
    /// What was measured.
    Done(Measured),
    /// What went wrong.
    Failed {
        /// In a sentence.
        message: String,
    },
}

/// A worker's connection to the program that measures, and the descriptors that came over it.
#[derive(Debug)]
pub(crate) struct Parent {
    conn: Conn,
    fds: Vec<OwnedFd>,
}

impl Parent {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Parent { conn: Conn::new(socket, MAX_LINE), fds: Vec::new() }
    }

    pub(crate) fn job(&mut self) -> Result<Job> {
        loop {
            match self.next()? {
                ToWorker::Descriptors {} => {}
                ToWorker::Job(job) => return Ok(job),
                other => return Err(Failure::Other(format!("told {other:?} before there was a job"))),
            }
        }
    }

    /// Says that this worker may begin, and waits until all of them may.
    pub(crate) fn ready(&mut self) -> Result<()> {
        self.conn.send(&FromWorker::Ready {}, &[])?;
        match self.next()? {
            ToWorker::Go {} => Ok(()),
            other => Err(Failure::Other(format!("told {other:?} instead of to go"))),
        }
    }

    /// Says what was measured, and waits until all workers have.
    pub(crate) fn done(&mut self, measured: Measured) -> Result<()> {
        self.conn.send(&FromWorker::Done(measured), &[])?;
        self.next().map(|_| ())
    }

    /// Says why nothing was measured.
    pub(crate) fn failed(&mut self, failure: &Failure) -> Result<()> {
        Ok(self.conn.send(&FromWorker::Failed { message: failure.to_string() }, &[])?)
    }

    /// The next descriptor that came with the job.
    pub(crate) fn take_fd(&mut self) -> Result<OwnedFd> {
        if self.fds.is_empty() {
            return Err(Failure::Other("the job came with too few descriptors".to_owned()));
        }
        Ok(self.fds.remove(0))
    }

    fn next(&mut self) -> Result<ToWorker> {
        loop {
            match self.conn.receive()? {
                Received::Line(line, fds) => {
                    self.fds.extend(fds);
                    return Ok(decode(&line)?);
                }
                Received::Closed => return Err(Failure::Other("the program that measures has gone".to_owned())),
                Received::Nothing => {
                    readable(self.conn.as_fd(), None).map_err(|e| Error::system("wait for the parent", e))?;
                }
            }
        }
    }
}
