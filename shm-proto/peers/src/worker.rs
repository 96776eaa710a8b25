//! One process of a run: makes or finds what it needs, says so, does its part, says what it has measured.

use std::io::{Write, stdin, stdout};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::Result;
use crate::case::{Job, Library, Measure, Measured, Role};
use crate::flow;
use crate::library::iceoryx2::Iceoryx2;
use crate::library::pipe::Pipe;
use crate::library::ringfire::Ringfire;
use crate::library::shm_proto::ShmProto;
use crate::library::{Peer, Receive, Send};

/// For messages and for answers.
const THERE: usize = 0;
const BACK: usize = 1;

pub fn run(job: &Job) -> Result<()> {
    if let Some(cpu) = job.cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    match job.library {
        Library::ShmProto => sized::<ShmProto>(job),
        Library::Iceoryx2 => sized::<Iceoryx2>(job),
        Library::Ringfire => sized::<Ringfire>(job),
        Library::Pipe => sized::<Pipe>(job),
    }
}

/// The size is known to the compiler, as it is in a program for one type of message; two of the libraries need that.
fn sized<P: Peer>(job: &Job) -> Result<()> {
    match job.case.size_bytes {
        64 => part::<P, 64>(job),
        1024 => part::<P, 1024>(job),
        65_536 => part::<P, 65_536>(job),
        other => Err(format!("nothing is compared with messages of {other} bytes").into()),
    }
}

fn part<P: Peer, const B: usize>(job: &Job) -> Result<()> {
    let readers = job.case.readers;
    match (job.role, job.case.measure) {
        (Role::Writer, Measure::Busy) => {
            let mut there = P::sender::<B>(job, THERE, 1)?;
            ready()?;
            wait()?;
            there.begin()?;
            let mut back = P::receiver::<B>(job, BACK, 0)?;
            back.begin()?;
            done(flow::ping::<B>(job, &mut there, &mut back)?)
        }
        (Role::Writer, measure) => {
            let mut there = P::sender::<B>(job, THERE, readers)?;
            ready()?;
            wait()?;
            there.begin()?;
            done(match measure {
                Measure::Throughput => flow::flood::<B>(job, &mut there)?,
                _ => flow::drip(job, &mut there)?,
            })
        }
        (Role::Reader(reader), Measure::Busy) => {
            let mut there = P::receiver::<B>(job, THERE, reader)?;
            let mut back = P::sender::<B>(job, BACK, 1)?;
            ready()?;
            there.begin()?;
            back.begin()?;
            done(flow::pong::<B>(&mut there, &mut back)?)
        }
        (Role::Reader(reader), measure) => {
            let mut there = P::receiver::<B>(job, THERE, reader)?;
            ready()?;
            there.begin()?;
            done(match measure {
                Measure::Throughput => flow::drain::<B>(&mut there)?,
                _ => flow::catch::<B>(&mut there)?,
            })
        }
    }
}

fn ready() -> Result<()> {
    println!("ready");
    Ok(stdout().flush()?)
}

fn wait() -> Result<()> {
    stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Says what was measured, and keeps everything until the others are done with it.
fn done(measured: Measured) -> Result<()> {
    println!("{}", serde_json::to_string(&measured)?);
    stdout().flush()?;
    wait()
}
