//! Runs cases: which processes take part, what connects them, and what they measured.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use shm_proto::Error;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::layout::ReaderPage;

use crate::carrier::slots_of;
use crate::crew::Crew;
use crate::daemon::{Own, Stage, channel_of};
use crate::host::allowed_cpus;
use crate::job::{Job, Role};
use crate::outcome::{Cpu, Measured, Outcome, Sample};
use crate::pipeline;
use crate::plan::{Case, Measure, Transport};
use crate::slots;
use crate::stop::Stop;
use crate::{Failure, Result};

/// The time between messages to a busy reader of a channel that was not made for this: the reader is polling again by then.
const BUSY_PACE: Duration = Duration::from_micros(20);

/// First touches of memory are faster than this.
const SLOWEST_BYTES_PER_S: u64 = 128 << 20;

/// The settings for all cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub warm_up: Duration,
    pub duration: Duration,
    pub messages: Option<u64>,
    pub pace: Duration,
    /// The time between the moments at which messages are due, in picoseconds; for a rate alone.
    pub interval_ps: u64,
    /// Processors that the user asked for.
    pub cpus: Option<Vec<usize>>,
    /// Processors that this process may use.
    pub allowed: Vec<usize>,
}

/// The shortest and the longest warm-up.
const WARM_UP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

impl Settings {
    /// Runs of this duration; everything else has its default.
    pub fn of(duration: Duration) -> Self {
        Settings {
            warm_up: (duration / 4).clamp(WARM_UP.0, WARM_UP.1),
            duration,
            messages: None,
            pace: Duration::from_millis(1),
            interval_ps: 0,
            cpus: None,
            allowed: allowed_cpus(),
        }
    }

    /// The processor for process `n` of `all`; the writer is process 0. By default each process has its own processor, or, if
    /// there are too few, none is pinned.
    pub fn cpu(&self, n: usize, all: usize) -> Option<usize> {
        match &self.cpus {
            Some(cpus) => cpus.get(n % cpus.len().max(1)).copied(),
            None if all <= self.allowed.len() => self.allowed.get(n).copied(),
            None => None,
        }
    }

    /// The job of process `n`; the writer is process 0.
    pub fn job(&self, case: &Case, role: Role, n: u32) -> Job {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Job {
            case: *case,
            role,
            reader: n.saturating_sub(1),
            cpu: self.cpu(n as usize, case.processes()),
            dir: PathBuf::new(),
            prefix: String::new(),
            channel: None,
            answers: case.is_busy(),
            warm_up_ns: nanoseconds(self.warm_up),
            duration_ns: nanoseconds(self.duration),
            messages: self.messages,
            pace_ns: nanoseconds(self.pace),
            interval_ps: self.interval_ps,
        }
    }
}

/// Why the case cannot be measured on this stage.
pub fn obstacle(stage: &Stage, case: &Case) -> Option<String> {
    let Stage::Running { channel, max_message, .. } = stage else { return None };
    match (case.measure, case.transport) {
        (Measure::Pipeline, _) => Some(format!("{case}: needs a daemon of its own, not channel {channel}")),
        (_, Transport::Ring) if case.size_bytes > *max_message => {
            Some(format!("{case}: channel {channel} takes messages to {max_message} bytes"))
        }
        _ => None,
    }
}

/// Measures every case `runs` times, all cases in turn, so that other work on the machine hits all of them alike. `step` hears
/// of each run before it begins. The outcomes are fewer and the flag is false if the user ended the measurement.
pub fn all(
    stage: &Stage,
    cases: &[Case],
    runs: u32,
    settings: &Settings,
    stop: Stop<'_>,
    mut step: impl FnMut(&Case),
) -> Result<(Vec<Outcome>, bool)> {
    let mut samples = vec![Vec::new(); cases.len()];
    let mut complete = true;
    'runs: for _ in 0..runs {
        for (case, samples) in cases.iter().zip(&mut samples) {
            step(case);
            match once(stage, case, settings, stop) {
                Ok(sample) => samples.push(sample),
                // Whatever fails after the user ended the measurement may fail because of that.
                Err(_) if stop.came() => {
                    complete = false;
                    break 'runs;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
    Ok((cases.iter().zip(&samples).filter_map(|(case, samples)| Outcome::of(*case, samples)).collect(), complete))
}

/// Runs the case once.
pub fn once(stage: &Stage, case: &Case, settings: &Settings, stop: Stop<'_>) -> Result<Sample> {
    stop.check()?;
    if case.measure == Measure::Pipeline {
        let producer = settings.job(case, Role::Writer, 0);
        return pipeline::run(case, &Job { cpu: None, ..producer }, settings.duration, stop);
    }
    let own = Own::new()?;
    let mut crew = Crew::default();
    hire(&mut crew, stage, &own, case, settings)?;
    // The writer fills the ring once before anything counts.
    let around = Duration::from_secs(case.capacity_bytes / SLOWEST_BYTES_PER_S);
    let mut carry = || {
        crew.until_ready(stop)?;
        crew.go()?;
        crew.results(stop, settings.warm_up + settings.duration + around)
    };
    let results = carry().map_err(|failure| match failure {
        Failure::Other(text) => Failure::Other(format!("{case}: {text}")),
        other => other,
    })?;
    evaluate(case, &results)
}

fn hire(crew: &mut Crew, stage: &Stage, own: &Own, case: &Case, settings: &Settings) -> Result<()> {
    let job = |role, n| -> Result<Job> {
        let job = settings.job(case, role, n);
        Ok(match (case.transport, stage) {
            (Transport::Ring, Stage::Private(daemon)) => {
                Job { dir: daemon.runtime_dir(), channel: Some(channel_of(case.capacity_bytes)?), ..job }
            }
            (Transport::Ring, Stage::Running { runtime_dir, channel, .. }) => {
                // This daemon has no channel for answers.
                let pace_ns = if case.is_busy() { BUSY_PACE.as_nanos() as u64 } else { job.pace_ns };
                let (dir, channel) = (runtime_dir.clone(), Some(channel.clone()));
                Job { dir, channel, answers: false, pace_ns, ..job }
            }
            _ => Job { dir: own.dir.clone(), prefix: own.prefix.clone(), ..job },
        })
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
    crew.hire(&job(Role::Writer, 0)?, writers)?;
    for (n, reader) in (1..).zip(lines) {
        crew.hire(&job(Role::Reader, n)?, reader)?;
    }
    Ok(())
}

fn double(fd: &OwnedFd) -> Result<OwnedFd> {
    Ok(fd.try_clone().map_err(|e| Error::system("pass a descriptor on", e))?)
}

/// What connects the writer and one reader alone: the descriptors for each. Those for sending come first.
fn line(case: &Case) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| Failure::from(Error::system("make a pipe", e)));
    Ok(match case.transport {
        Transport::Pipe if case.is_busy() => {
            let ((there_from, there_to), (back_from, back_to)) = (pipe()?, pipe()?);
            (vec![there_to, back_from], vec![back_to, there_from])
        }
        Transport::Pipe => {
            let (from, to) = pipe()?;
            (vec![to], vec![from])
        }
        Transport::Socket => {
            let (ours, theirs) = UnixStream::pair().map_err(|e| Error::system("make a pair of sockets", e))?;
            let (ours, theirs) = (OwnedFd::from(ours), OwnedFd::from(theirs));
            match case.is_busy() {
                true => (vec![double(&ours)?, ours], vec![double(&theirs)?, theirs]),
                false => (vec![ours], vec![theirs]),
            }
        }
        Transport::Limit => {
            let (_, fd) = SharedPage::<ReaderPage>::create("bench")?;
            (vec![double(&fd)?, double(&fd)?], vec![double(&fd)?, fd])
        }
        _ => (Vec::new(), Vec::new()),
    })
}

/// The figures of the slowest reader; for latency, those of the process that measured the times.
fn evaluate(case: &Case, results: &[Measured]) -> Result<Sample> {
    let none = || {
        Failure::Other(format!(
            "{case}: none of {} processes has counted a message: the time was over before the first message came; measure \
             longer (--duration, --messages)",
            results.len()
        ))
    };
    let measured = match case.measure {
        Measure::Latency | Measure::Rate => results.iter().find(|one| one.latency.is_some()),
        _ => results.iter().skip(1).max_by_key(|one| one.elapsed_ns),
    };
    let measured = measured.filter(|one| one.messages > 0).ok_or_else(none)?;
    Ok(Sample { cpu: Cpu::of(results), ..Sample::new(measured) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_has_a_processor_or_none_has() {
        let settings = |cpus: Option<&[usize]>| Settings {
            cpus: cpus.map(<[usize]>::to_vec),
            allowed: vec![2, 5],
            ..Settings::of(Duration::ZERO)
        };
        let of = |cpus: Option<&[usize]>, all| (0..all).map(|n| settings(cpus).cpu(n, all)).collect::<Vec<_>>();
        assert_eq!(of(None, 2), [Some(2), Some(5)]);
        assert_eq!(of(None, 3), [None, None, None]);
        assert_eq!(of(Some(&[1, 3]), 3), [Some(1), Some(3), Some(1)], "what is asked for is taken in turn");
    }
}
