//! A channel of shmd.

use std::hint::spin_loop;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shm_proto::{Endpoint, Error, Message, Reader, RequestError, Start, Writer};

use super::Carrier;
use crate::Result;
use crate::flow::{Receiver, Sender};
use crate::job::{BACK, Job, Parent, Role};
use crate::payload;
use crate::plan::Fill;

/// The daemon may still be busy with the end of the case before.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Ring;

impl Carrier for Ring {
    type To = To;
    type From = From;

    fn sender(job: &Job, _: &mut Parent) -> Result<To> {
        let writer = attach(job, job.role == Role::Writer, Writer::attach)?;
        let message = payload::template(job.case.size_bytes);
        Ok(To { writer, message, batch: u64::from(job.case.batch), fill: job.case.fill })
    }

    fn receiver(job: &Job, _: &mut Parent) -> Result<From> {
        let reader =
            attach(job, job.role == Role::Reader, |daemon, channel| Reader::attach(daemon, channel, Start::New))?;
        Ok(From { reader, base: payload::base(job.case.size_bytes), busy: job.case.polls() })
    }
}

/// Attaches to the channel of the messages (`there`), or to that of the answers.
fn attach<T>(job: &Job, there: bool, how: impl Fn(&Endpoint, Option<&str>) -> shm_proto::Result<T>) -> Result<T> {
    let channel = if there { job.channel.as_deref() } else { Some(BACK) };
    let (daemon, begun) = (Endpoint::in_dir(&job.dir), Instant::now());
    loop {
        match how(&daemon, channel) {
            Err(Error::Request(RequestError::Refused(refusal)))
                if refusal.kind.is_temporary() && begun.elapsed() < PATIENCE =>
            {
                sleep(Duration::from_millis(1));
            }
            other => return Ok(other?),
        }
    }
}

pub(super) struct To {
    writer: Writer,
    message: Vec<u8>,
    batch: u64,
    fill: Fill,
}

impl Sender for To {
    #[inline]
    fn send(&mut self, first: u64, count: u64) -> Result<()> {
        let numbers = first..first + count;
        let To { writer, message, batch, .. } = self;
        match (self.fill, *batch) {
            // The usual size is known to the compiler, as it is in a program for one type of message.
            (Fill::Copy, 1) => match <&mut [u8; 64]>::try_from(&mut **message) {
                Ok(line) => one_by_one(writer, line, numbers)?,
                Err(_) => one_by_one(writer, message, numbers)?,
            },
            (Fill::Copy, batch) => match <&mut [u8; 64]>::try_from(&mut **message) {
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
            (Fill::InPlace, batch) => {
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

    #[inline]
    fn send_stamped(&mut self, number: u64, time: u64) -> Result<()> {
        payload::stamp(&mut self.message, number, time);
        self.writer.publish(&self.message)?;
        Ok(())
    }
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

pub(super) struct From {
    reader: Reader,
    base: u64,
    busy: bool,
}

impl From {
    /// Looks at the next message where it lies. Unless the reader is a busy one, it sleeps when there is none for some
    /// microseconds.
    #[inline(always)]
    fn next<T>(&mut self, look: impl Fn(&Message<'_>) -> T) -> Result<T> {
        loop {
            let message = match self.busy {
                false => self.reader.recv(None)?,
                true => match self.reader.try_recv()? {
                    Some(message) => message,
                    None => {
                        spin_loop();
                        continue;
                    }
                },
            };
            let seen = look(&message);
            message.finish()?;
            return Ok(seen);
        }
    }
}

impl Receiver for From {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        let sum = self.next(|message| message.words().fold(0, u64::wrapping_add))?;
        Ok(sum.wrapping_sub(self.base))
    }

    #[inline]
    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        let (time, sum) =
            self.next(|message| (message.words().nth(1).unwrap_or(0), message.words().fold(0, u64::wrapping_add)))?;
        Ok((payload::number(sum, self.base, time), time))
    }
}
