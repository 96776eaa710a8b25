//! The processes that do what is measured: this program again, with a hidden command.
//!
//! A worker gets its job and descriptors over a Unix socket that is its standard input, makes ready, says so, waits for the
//! word, works, and says what it measured. It dies with its parent.

mod flow;
mod limits;
pub(super) mod payload;
mod pipeline;
mod ring;
mod stream;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::PathBuf;
use std::process::Command;

use clap::Args as ClapArgs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use shm_proto::internal::control::{Conn, Received, decode};
use shm_proto::{ChannelName, Error};

pub(super) use self::limits::slots_of;
use super::outcome::Measured;
use super::plan::{Case, Measure, Transport};
use crate::error::{Failure, Result};

/// The longest line between parent and worker.
pub(super) const MAX_LINE: usize = 64 << 10;

/// A worker of `shmctl bench`; not for people.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The process that started it, and whose end ends it.
    #[arg(long)]
    parent: u32,
    /// Become this program instead, which SIGTERM ends when the parent dies.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// Which part of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// Sends; of a latency, the side that takes the time.
    Writer,
    /// Receives.
    Reader,
}

/// What a worker is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) case: Case,
    pub(super) role: Role,
    /// Which of the readers, from 0.
    pub(super) reader: u32,
    /// The processor to stay on.
    pub(super) cpu: Option<usize>,
    /// Where the daemon is.
    pub(super) runtime_dir: PathBuf,
    /// From writer to readers.
    pub(super) channel: Option<ChannelName>,
    /// From reader to writer; without it single messages carry the time they were sent.
    pub(super) back: Option<ChannelName>,
    /// Before anything counts.
    pub(super) warm_up_ns: u64,
    pub(super) duration_ns: u64,
    /// Instead of the duration.
    pub(super) messages: Option<u64>,
    /// Between single messages.
    pub(super) pace_ns: u64,
}

/// From the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToWorker {
    /// Some descriptors come with this line.
    Descriptors {},
    /// What to do, after all descriptors.
    Job(Job),
    /// Everybody is ready.
    Go {},
}

/// To the parent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromWorker {
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

pub(crate) fn run(args: &Args) -> Result<()> {
    let signal = if args.program.is_empty() { Signal::SIGKILL } else { Signal::SIGTERM };
    set_pdeathsig(signal).map_err(|e| Error::system("ask for a signal at the parent's end", e))?;
    if parent_id() != args.parent {
        return Err(Failure::Other("this command is for shmctl bench alone, which has ended".to_owned()));
    }
    if let Some((program, rest)) = args.program.split_first() {
        let error = Command::new(program).args(rest).exec();
        return Err(Error::system(format!("start {}", program.display()), error).into());
    }
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|e| Error::system("take the parent's socket", e))?;
    let mut stand = Stand { conn: Conn::new(UnixStream::from(stdin), MAX_LINE), fds: Vec::new() };
    let job = stand.job()?;
    let told = match work(&job, &mut stand) {
        Ok(measured) => FromWorker::Done(Measured { cpu_ns: cpu_ns(), ..measured }),
        Err(failure) => FromWorker::Failed { message: failure.to_string() },
    };
    Ok(stand.conn.send(&told, &[])?)
}

fn work(job: &Job, stand: &mut Stand) -> Result<Measured> {
    if let Some(cpu) = job.cpu {
        let mut set = CpuSet::new();
        set.set(cpu)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(|e| Error::system(format!("stay on processor {cpu}"), e))?;
    }
    match (job.case.measure, job.case.transport) {
        (Measure::Pipeline, _) => pipeline::produce(job, stand),
        (Measure::Throughput, Transport::Ring | Transport::Lent) => ring::throughput(job, stand),
        (Measure::Latency, Transport::Ring | Transport::Lent) => ring::latency(job, stand),
        (Measure::Throughput, Transport::Pipe | Transport::Socket) => stream::throughput(job, stand),
        (Measure::Latency, Transport::Pipe | Transport::Socket) => stream::latency(job, stand),
        (Measure::Throughput, Transport::Limit) => limits::slots(job, stand),
        (Measure::Latency, Transport::Limit) => limits::latency(job, stand),
    }
}

/// Processor time of this process so far.
fn cpu_ns() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(micros).unwrap_or(0) * 1000
}

/// The worker's place: its connection to the parent, and what it was given.
#[derive(Debug)]
struct Stand {
    conn: Conn,
    fds: Vec<OwnedFd>,
}

impl Stand {
    fn job(&mut self) -> Result<Job> {
        loop {
            match self.next()? {
                ToWorker::Descriptors {} => {}
                ToWorker::Job(job) => return Ok(job),
                ToWorker::Go {} => return Err(Failure::Other("told to go before there was a job".to_owned())),
            }
        }
    }

    /// Says that this worker may begin, and waits until all of them may.
    fn ready(&mut self) -> Result<()> {
        self.conn.send(&FromWorker::Ready {}, &[])?;
        match self.next()? {
            ToWorker::Go {} => Ok(()),
            other => Err(Failure::Other(format!("told {other:?} instead of to go"))),
        }
    }

    /// The next descriptor that came with the job.
    fn take_fd(&mut self) -> Result<OwnedFd> {
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
                Received::Closed => return Err(Failure::Other("shmctl bench has gone".to_owned())),
                Received::Nothing => {
                    let mut fds = [PollFd::new(self.conn.as_fd(), PollFlags::POLLIN)];
                    match poll(&mut fds, PollTimeout::NONE) {
                        Ok(_) | Err(nix::Error::EINTR) => {}
                        Err(e) => return Err(Error::system("wait for the parent", e).into()),
                    }
                }
            }
        }
    }
}
