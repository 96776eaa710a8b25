//! One run of one case: who takes part, what connects them, what comes of it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::slots;
use shm_proto::internal::ring::layout::ReaderPage;
use shm_proto::{ChannelName, Error};

use super::crew::{Crew, Interruptible};
use super::outcome::{Measured, Sample};
use super::pipeline;
use super::plan::{Case, Measure, Transport, Wait};
use super::stage::{BACK, Stage, channel_of};
use super::worker::{Job, Role, slots_of};
use crate::error::{Failure, Result};
use crate::signals::Signals;

/// Messages to a busy reader of somebody else's channel are that far apart: it has come to look again.
const BUSY_PACE: Duration = Duration::from_micros(20);

/// Memory is touched for the first time faster than this.
const SLOWEST_BYTES_PER_S: u64 = 128 << 20;

/// What holds for all cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    pub(super) messages: Option<u64>,
    pub(super) pace: Duration,
    /// Asked for.
    pub(super) cpus: Option<Vec<usize>>,
    /// That there are.
    pub(super) allowed: Vec<usize>,
}

impl Settings {
    /// The processor for process `n` of `all`: the writer is 0. By default one for each, or else none in particular.
    pub(super) fn cpu(&self, n: usize, all: usize) -> Option<usize> {
        match &self.cpus {
            Some(cpus) => cpus.get(n % cpus.len().max(1)).copied(),
            None if all <= self.allowed.len() => self.allowed.get(n).copied(),
            None => None,
        }
    }

    fn job(&self, case: &Case, role: Role, n: u32) -> Job {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Job {
            case: *case,
            role,
            reader: n.saturating_sub(1),
            cpu: self.cpu(n as usize, case.readers as usize + 1),
            runtime_dir: PathBuf::new(),
            channel: None,
            back: None,
            warm_up_ns: nanoseconds(self.warm_up),
            duration_ns: nanoseconds(self.duration),
            messages: self.messages,
            pace_ns: nanoseconds(self.pace),
        }
    }
}

/// Why this case cannot be measured there.
pub(super) fn obstacle(stage: &Stage, case: &Case) -> Option<String> {
    let Stage::Running { channel, max_message, .. } = stage else { return None };
    match (case.measure, case.transport) {
        (Measure::Pipeline, _) => Some(format!("{case}: needs a daemon of its own, not channel {channel}")),
        (_, Transport::Ring) if case.size_bytes > *max_message => {
            Some(format!("{case}: channel {channel} takes messages to {max_message} bytes"))
        }
        _ => None,
    }
}

/// Runs the case once. `None` when a signal ended it.
pub(super) fn run(stage: &Stage, case: &Case, settings: &Settings, signals: &Signals) -> Result<Interruptible<Sample>> {
    if case.measure == Measure::Pipeline {
        let producer = settings.job(case, Role::Writer, 0);
        return pipeline::run(case, &Job { cpu: None, ..producer }, settings.duration, signals);
    }
    let mut crew = Crew::default();
    hire(&mut crew, stage, case, settings)?;
    if crew.until_ready(signals)?.is_none() {
        return Ok(None);
    }
    crew.go()?;
    // A ring is gone around once before anything counts.
    let around = Duration::from_secs(case.capacity_bytes / SLOWEST_BYTES_PER_S);
    let expected = settings.warm_up + settings.duration + around;
    let Some(results) = crew.results(signals, expected)? else { return Ok(None) };
    evaluate(case, &results).map(Some)
}

fn hire(crew: &mut Crew, stage: &Stage, case: &Case, settings: &Settings) -> Result<()> {
    let (channel, back, runtime_dir) = channels(stage, case)?;
    let place = |mut job: Job| {
        if case.transport == Transport::Ring {
            (job.runtime_dir, job.channel, job.back) = (runtime_dir.clone(), channel.clone(), back.clone());
            if matches!(stage, Stage::Running { .. }) && case.wait == Wait::Busy {
                job.pace_ns = BUSY_PACE.as_nanos() as u64;
            }
        }
        job
    };
    let mut writers = Vec::new();
    let mut lines = Vec::new();
    if let (Transport::Limit, Measure::Throughput) = (case.transport, case.measure) {
        let slots = slots::create(slots_of(case))?;
        for _ in 0..case.readers {
            lines.push(vec![double(&slots)?]);
        }
        writers.push(slots);
    } else {
        for _ in 0..case.readers {
            let (writer, reader) = line(case)?;
            writers.extend(writer);
            lines.push(reader);
        }
    }
    crew.hire(&place(settings.job(case, Role::Writer, 0)), writers)?;
    for (n, reader) in (1..).zip(lines) {
        crew.hire(&place(settings.job(case, Role::Reader, n)), reader)?;
    }
    Ok(())
}

type Channels = (Option<ChannelName>, Option<ChannelName>, PathBuf);

fn channels(stage: &Stage, case: &Case) -> Result<Channels> {
    let dir = stage.runtime_dir();
    Ok(match stage {
        Stage::Running { channel, .. } => (Some(channel.clone()), None, dir),
        Stage::Private(_) => {
            let answers = case.measure == Measure::Latency && case.wait == Wait::Busy;
            let back = answers.then(|| BACK.parse()).transpose()?;
            (Some(channel_of(case.capacity_bytes)?), back, dir)
        }
    })
}

fn double(fd: &OwnedFd) -> Result<OwnedFd> {
    Ok(fd.try_clone().map_err(|e| Error::system("pass a descriptor on", e))?)
}

/// What connects the writer and one reader alone: the descriptors for the one and for the other.
fn line(case: &Case) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    let failed = |e| Failure::from(Error::system("make a pipe", e));
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed);
    Ok(match (case.transport, case.measure) {
        (Transport::Ring | Transport::Lent, _) | (_, Measure::Pipeline) | (Transport::Limit, Measure::Throughput) => {
            (Vec::new(), Vec::new())
        }
        (Transport::Pipe, Measure::Throughput) => {
            let (from, to) = pipe()?;
            (vec![to], vec![from])
        }
        (Transport::Pipe, Measure::Latency) => {
            let ((there_from, there_to), (back_from, back_to)) = (pipe()?, pipe()?);
            (vec![there_to, back_from], vec![back_to, there_from])
        }
        (Transport::Socket, measure) => {
            let (ours, theirs) = UnixStream::pair().map_err(|e| Error::system("make a pair of sockets", e))?;
            let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
            match measure {
                Measure::Latency => (vec![double(&ours)?, ours], vec![double(&theirs)?, theirs]),
                _ => (vec![ours], vec![theirs]),
            }
        }
        (Transport::Limit, Measure::Latency) => {
            let (_, fd) = SharedPage::<ReaderPage>::create("bench")?;
            (vec![double(&fd)?], vec![fd])
        }
    })
}

/// The figures of the slowest reader; of a latency, of whoever took the times.
fn evaluate(case: &Case, results: &[Measured]) -> Result<Sample> {
    let none = || {
        Failure::Other(format!(
            "{case}: none of {} processes has counted a message: the time was over before the first one came; measure longer \
             (--duration, --messages)",
            results.len()
        ))
    };
    let measured = match case.measure {
        Measure::Latency => results.iter().find(|one| one.latency.is_some()),
        _ => results.iter().skip(1).max_by_key(|one| one.elapsed_ns),
    };
    let measured = measured.filter(|one| one.messages > 0).ok_or_else(none)?;
    Ok(Sample::new(measured))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_a_processor_or_none_has() {
        let settings = |cpus: Option<&[usize]>| Settings {
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            messages: None,
            pace: Duration::ZERO,
            cpus: cpus.map(<[usize]>::to_vec),
            allowed: vec![2, 5],
        };
        let of = |cpus: Option<&[usize]>, all| (0..all).map(|n| settings(cpus).cpu(n, all)).collect::<Vec<_>>();
        assert_eq!(of(None, 2), [Some(2), Some(5)]);
        assert_eq!(of(None, 3), [None, None, None]);
        assert_eq!(of(Some(&[1, 3]), 3), [Some(1), Some(3), Some(1)], "what is asked for is taken in turn");
    }
}
