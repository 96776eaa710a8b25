//! When to send, what to check, when to read the clock: the same for every carrier.

mod due;

use std::time::Duration;

use shm_proto::internal::os::clock::monotonic_ns;

pub(crate) use self::due::keep_rate;
use crate::cpu::CpuTime;
use crate::job::Job;
use crate::outcome::{Measured, Times};
use crate::payload::{END, START};
use crate::plan::{Transport, Wait};
use crate::{Failure, Result};

/// The writer's end. It writes every byte of every message, and waits for the readers when there is no room.
pub(crate) trait Sender {
    /// Sends `count` messages with the numbers from `first` on, in batches if the case has them.
    fn send(&mut self, first: u64, count: u64) -> Result<()>;

    /// Sends a message that carries the time.
    fn send_stamped(&mut self, _number: u64, _time: u64) -> Result<()> {
        Err(Failure::Other("this carrier sends no times".to_owned()))
    }
}

/// A reader's end. It looks at every byte of every message, in place if the carrier allows that.
pub(crate) trait Receiver {
    /// Waits for the next message and returns its number, computed from all bytes: if a byte is wrong, so is the number.
    fn receive(&mut self) -> Result<u64>;

    /// Waits for a message that carries the time, and returns its number and the time.
    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        Err(Failure::Other("this carrier receives no times".to_owned()))
    }
}

/// Bytes between two looks at the clock.
const LOOK_BYTES: u64 = 256 << 10;
/// Messages between two looks at the clock, at most.
const LOOK_MESSAGES: u64 = 4096;

/// The number of messages that do not count because the first lap through a ring maps its pages.
fn around(job: &Job) -> u64 {
    match job.case.transport {
        Transport::Pipe | Transport::Socket | Transport::Limit => 0,
        _ => job.case.capacity_bytes / job.case.size_bytes.max(1),
    }
}

/// Sends as fast as possible.
pub(crate) fn flood(job: &Job, to: &mut impl Sender) -> Result<Measured> {
    let batch = u64::from(job.case.batch.max(1));
    let look = (LOOK_BYTES / job.case.size_bytes.max(1)).clamp(1, LOOK_MESSAGES).next_multiple_of(batch);
    let mut number = 0;
    let begun = monotonic_ns();
    let around = around(job);
    while number < around || monotonic_ns() - begun < job.warm_up_ns {
        to.send(number, look)?;
        number += look;
    }
    to.send(number | START, 1)?;
    let (first, used, start) = (number, CpuTime::now()?, monotonic_ns());
    number += 1;
    match job.messages {
        Some(messages) => {
            while number < first + messages {
                let count = look.min(first + messages - number);
                to.send(number, count)?;
                number += count;
            }
        }
        None => {
            while monotonic_ns() - start < job.duration_ns {
                to.send(number, look)?;
                number += look;
            }
        }
    }
    to.send(number | END, 1)?;
    measured(number - first, monotonic_ns() - start, used)
}

/// Receives what [`flood`] sends. What counts are the messages after the one marked as the first, in the time between the
/// first and the last.
pub(crate) fn drain(from: &mut impl Receiver) -> Result<Measured> {
    let mut expected = 0;
    let (mut first, mut start, mut used) = (0, 0, CpuTime::default());
    loop {
        let number = from.receive()?;
        if number != expected {
            match number ^ expected {
                START => (first, start, used) = (expected, monotonic_ns(), CpuTime::now()?),
                END => return measured(expected - first, monotonic_ns() - start, used),
                _ => return Err(wrong(number, expected)),
            }
        }
        expected += 1;
    }
}

/// Sends a message, waits for the answer, and counts half of the time between two answers as one way. The clock is read
/// once a round.
pub(crate) fn ping(job: &Job, to: &mut impl Sender, from: &mut impl Receiver) -> Result<Measured> {
    let mut times = Times::new()?;
    let begun = monotonic_ns();
    let (mut number, mut last) = (0, begun);
    let (mut first, mut start, mut used) = (None, begun, CpuTime::default());
    loop {
        to.send(number, 1)?;
        let answer = from.receive()?;
        let now = monotonic_ns();
        if answer != number {
            return Err(wrong(answer, number));
        }
        number += 1;
        match first {
            None if now - begun >= job.warm_up_ns => (first, start, used) = (Some(number), now, CpuTime::now()?),
            None => {}
            Some(first) => {
                times.record((now - last) / 2);
                let done = match job.messages {
                    Some(messages) => number - first >= messages,
                    None => now - start >= job.duration_ns,
                };
                if done {
                    to.send(number | END, 1)?;
                    from.receive()?;
                    let latency = Some(times.percentiles());
                    return Ok(Measured { latency, ..measured(number - first, now - start, used)? });
                }
            }
        }
        last = now;
    }
}

/// The other side of [`ping`], from the first message on.
pub(crate) fn pong(from: &mut impl Receiver, to: &mut impl Sender) -> Result<Measured> {
    let mut expected = 0;
    let (mut start, mut used) = (0, CpuTime::default());
    loop {
        let number = from.receive()?;
        to.send(number, 1)?;
        if number == expected | END {
            return measured(expected, monotonic_ns() - start, used);
        }
        if expected == 0 {
            (start, used) = (monotonic_ns(), CpuTime::now()?);
        }
        if number != expected {
            return Err(wrong(number, expected));
        }
        expected += 1;
    }
}

/// Sends single messages at a pace; each carries the time just before it was sent.
pub(crate) fn drip(job: &Job, to: &mut impl Sender) -> Result<Measured> {
    let mut number = 0;
    while number < around(job) {
        to.send_stamped(number, monotonic_ns())?;
        number += 1;
    }
    let begun = monotonic_ns();
    let mut due = begun;
    let (mut first, mut start, mut used) = (None, begun, CpuTime::default());
    loop {
        due = (due + job.pace_ns).max(monotonic_ns());
        await_moment(due, job.case.wait);
        let now = monotonic_ns();
        let done = match (first, job.messages) {
            (None, _) => false,
            (Some(first), Some(messages)) => number - first >= messages,
            (Some(_), None) => now - start >= job.duration_ns,
        };
        if done {
            to.send_stamped(number | END, monotonic_ns())?;
            return measured(number - first.unwrap_or(number), now - start, used);
        }
        if first.is_none() && now - begun >= job.warm_up_ns {
            (first, start, used) = (Some(number), now, CpuTime::now()?);
            to.send_stamped(number | START, monotonic_ns())?;
        } else {
            to.send_stamped(number, monotonic_ns())?;
        }
        number += 1;
    }
}

/// The other side of [`drip`] and [`keep_rate`].
pub(crate) fn catch(from: &mut impl Receiver) -> Result<Measured> {
    let mut times = Times::new()?;
    let mut expected = 0;
    let (mut first, mut start, mut used) = (None, 0, CpuTime::default());
    loop {
        let (number, sent) = from.receive_stamped()?;
        let now = monotonic_ns();
        match number ^ expected {
            0 | START | END => {}
            _ => return Err(wrong(number, expected)),
        }
        if number & START != 0 {
            (first, start, used) = (Some(expected), now, CpuTime::now()?);
        }
        if first.is_some() {
            times.record(now.saturating_sub(sent));
        }
        if number & END != 0 {
            let latency = Some(times.percentiles());
            return Ok(Measured { latency, ..measured(expected - first.unwrap_or(expected), now - start, used)? });
        }
        expected += 1;
    }
}

fn await_moment(due_ns: u64, wait: Wait) {
    loop {
        let left = due_ns.saturating_sub(monotonic_ns());
        match wait {
            _ if left == 0 => return,
            Wait::Busy => std::hint::spin_loop(),
            Wait::Sleep => std::thread::sleep(Duration::from_nanos(left)),
        }
    }
}

/// What was measured by now; `used` is the processor time that the process had used when the first message that counts was due.
fn measured(messages: u64, elapsed_ns: u64, used: CpuTime) -> Result<Measured> {
    Ok(Measured { messages, elapsed_ns, cpu: CpuTime::since(used)?, latency: None })
}

fn wrong(number: u64, expected: u64) -> Failure {
    Failure::Other(format!(
        "the transport is broken: message {expected} was expected, and the sum of what came stands for {}; a message was lost, \
         came twice, or has other bytes than were sent. Does another program write to the channel?",
        number & !(START | END)
    ))
}
