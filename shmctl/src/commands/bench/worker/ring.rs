//! Both sides of a channel.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shm_proto::{ChannelName, Endpoint, Error, ErrorKind, Reader, Start, Writer};

use super::payload::{self, STAMP};
use super::{Job, Role, Stand, flow};
use crate::commands::bench::outcome::Measured;
use crate::commands::bench::plan::{Fill, Wait};
use crate::error::Result;

/// The daemon may be still seeing to the end of the case before.
const PATIENCE: Duration = Duration::from_secs(5);

fn attach<T>(
    job: &Job,
    channel: Option<&ChannelName>,
    how: impl Fn(&Endpoint, Option<&ChannelName>) -> shm_proto::Result<T>,
) -> Result<T> {
    let (daemon, begun) = (Endpoint::in_dir(&job.runtime_dir), Instant::now());
    loop {
        match how(&daemon, channel) {
            Err(Error::Refused(refusal))
                if matches!(
                    refusal.kind,
                    ErrorKind::WriterTaken | ErrorKind::TooMany | ErrorKind::Busy | ErrorKind::TryLater
                ) && begun.elapsed() < PATIENCE =>
            {
                sleep(Duration::from_millis(1));
            }
            other => return Ok(other?),
        }
    }
}

fn writer(job: &Job, channel: Option<&ChannelName>) -> Result<Writer> {
    attach(job, channel, Writer::attach)
}

fn reader(job: &Job, channel: Option<&ChannelName>) -> Result<Reader> {
    attach(job, channel, |daemon, channel| Reader::attach(daemon, channel, Start::New))
}

pub(super) fn throughput(job: &Job, stand: &mut Stand) -> Result<Measured> {
    match job.role {
        Role::Writer => {
            let mut writer = writer(job, job.channel.as_ref())?;
            stand.ready()?;
            let mut message = payload::template(job.case.size_bytes);
            flow::flood(job, |first, count| send(job, &mut writer, &mut message, first, count))
        }
        Role::Reader => {
            let mut reader = reader(job, job.channel.as_ref())?;
            stand.ready()?;
            flow::drain(job, || next(&mut reader))
        }
    }
}

#[inline]
fn send(job: &Job, writer: &mut Writer, message: &mut [u8], first: u64, count: u64) -> Result<()> {
    let batch = u64::from(job.case.batch);
    let numbers = first..first + count;
    match (job.case.fill, batch) {
        // The usual size is known to the compiler, as it is in a program for one type of message.
        (Fill::Copy, 1) => match <&mut [u8; 64]>::try_from(&mut *message) {
            Ok(line) => one_by_one(writer, line, numbers)?,
            Err(_) => one_by_one(writer, message, numbers)?,
        },
        (Fill::Copy, _) => match <&mut [u8; 64]>::try_from(&mut *message) {
            Ok(line) => together(writer, line, numbers, batch)?,
            Err(_) => together(writer, message, numbers, batch)?,
        },
        (Fill::InPlace, 1) => {
            for number in numbers {
                if let Some(mut slot) = writer.reserve(message.len())? {
                    payload::fill(&mut slot, number);
                    slot.commit(message.len())?;
                }
            }
        }
        (Fill::InPlace, _) => {
            for part in parts(numbers, batch) {
                let mut together = writer.batch();
                for number in part {
                    together.push_with(message.len(), |slot| payload::fill(slot, number))?;
                }
                together.commit()?;
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn one_by_one(writer: &mut Writer, message: &mut [u8], numbers: Range<u64>) -> Result<()> {
    for number in numbers {
        payload::set(message, number);
        writer.publish(message)?;
    }
    Ok(())
}

#[inline(always)]
fn together(writer: &mut Writer, message: &mut [u8], numbers: Range<u64>, batch: u64) -> Result<()> {
    for part in parts(numbers, batch) {
        let mut together = writer.batch();
        for number in part {
            payload::set(message, number);
            together.push(message)?;
        }
        together.commit()?;
    }
    Ok(())
}

/// The numbers of each batch.
fn parts(numbers: Range<u64>, batch: u64) -> impl Iterator<Item = Range<u64>> {
    let end = numbers.end;
    let step = usize::try_from(batch).unwrap_or(usize::MAX);
    numbers.step_by(step).map(move |begin| begin..(begin + batch).min(end))
}

/// Adds up the next message where it lies; sleeps when there is none for some microseconds.
#[inline]
fn next(reader: &mut Reader) -> Result<u64> {
    let message = reader.recv(None)?;
    let sum = message.words().fold(0, u64::wrapping_add);
    message.finish()?;
    Ok(sum)
}

pub(super) fn latency(job: &Job, stand: &mut Stand) -> Result<Measured> {
    let mut message = payload::template(job.case.size_bytes);
    let base = payload::sum(&message);
    let mut send = |writer: &mut Writer, number| {
        payload::set(&mut message, number);
        writer.publish(&message)?;
        Ok(())
    };
    match (job.role, job.back.as_ref()) {
        (Role::Writer, Some(back)) => {
            let (mut there, mut back) = (writer(job, job.channel.as_ref())?, reader(job, Some(back))?);
            stand.ready()?;
            flow::ping(job, |number| send(&mut there, number), || Ok(spin(&mut back)?.wrapping_sub(base)))
        }
        (Role::Reader, Some(back)) => {
            let (mut there, mut back) = (reader(job, job.channel.as_ref())?, writer(job, Some(back))?);
            stand.ready()?;
            flow::pong(|| Ok(spin(&mut there)?.wrapping_sub(base)), |number| send(&mut back, number))
        }
        (Role::Writer, None) => {
            let mut writer = writer(job, job.channel.as_ref())?;
            stand.ready()?;
            flow::drip(job, |number, time| {
                payload::set(&mut message, number);
                message[STAMP].copy_from_slice(&time.to_le_bytes());
                writer.publish(&message)?;
                Ok(())
            })
        }
        (Role::Reader, None) => {
            let mut reader = reader(job, job.channel.as_ref())?;
            stand.ready()?;
            // The template has a 1 where a time is.
            flow::catch(job, || {
                let (sum, time) = stamped(&mut reader, job.case.wait)?;
                Ok((sum.wrapping_sub(base).wrapping_add(1).wrapping_sub(time), time))
            })
        }
    }
}

/// Adds up the next message; looks for it without a pause.
#[inline]
fn spin(reader: &mut Reader) -> Result<u64> {
    loop {
        if let Some(message) = reader.try_recv()? {
            let sum = message.words().fold(0, u64::wrapping_add);
            message.finish()?;
            return Ok(sum);
        }
        std::hint::spin_loop();
    }
}

/// Adds up the next message, and takes out the time it was sent.
#[inline]
fn stamped(reader: &mut Reader, wait: Wait) -> Result<(u64, u64)> {
    loop {
        let message = match wait {
            Wait::Sleep => reader.recv(None)?,
            Wait::Busy => match reader.try_recv()? {
                Some(message) => message,
                None => {
                    std::hint::spin_loop();
                    continue;
                }
            },
        };
        let time = message.words().nth(1).unwrap_or(0);
        let sum = message.words().fold(0, u64::wrapping_add);
        message.finish()?;
        return Ok((sum, time));
    }
}
