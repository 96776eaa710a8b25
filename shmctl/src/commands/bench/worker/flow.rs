//! When to send, what to check, when to take the time: the same for every transport.

use std::time::Duration;

use shm_proto::internal::os::clock::monotonic_ns;

use super::Job;
use super::payload::{self, END, START};
use crate::commands::bench::outcome::{Measured, Times};
use crate::commands::bench::plan::{Transport, Wait};
use crate::error::{Failure, Result};

/// Bytes between two looks at the clock.
const LOOK_BYTES: u64 = 256 << 10;
/// Messages between two looks at the clock, at most.
const LOOK_MESSAGES: u64 = 4096;

/// So many messages come first and do not count: the first time around a ring maps its pages.
fn around(job: &Job) -> u64 {
    if job.case.transport == Transport::Ring { job.case.capacity_bytes / job.case.size_bytes.max(1) } else { 0 }
}

/// Sends as fast as it goes: `send(first, count)` sends messages numbered `first` and up.
pub(super) fn flood(job: &Job, mut send: impl FnMut(u64, u64) -> Result<()>) -> Result<Measured> {
    let batch = u64::from(job.case.batch.max(1));
    let look = (LOOK_BYTES / job.case.size_bytes.max(1)).clamp(1, LOOK_MESSAGES).next_multiple_of(batch);
    let mut number = 0;
    let begun = monotonic_ns();
    let around = around(job);
    while number < around || monotonic_ns() - begun < job.warm_up_ns {
        send(number, look)?;
        number += look;
    }
    send(number | START, 1)?;
    let (first, start) = (number, monotonic_ns());
    number += 1;
    match job.messages {
        Some(messages) => {
            while number < first + messages {
                let count = look.min(first + messages - number);
                send(number, count)?;
                number += count;
            }
        }
        None => {
            while monotonic_ns() - start < job.duration_ns {
                send(number, look)?;
                number += look;
            }
        }
    }
    send(number | END, 1)?;
    Ok(measured(job, number - first, monotonic_ns() - start))
}

/// Receives what [`flood`] sends: `next` adds up all bytes of the next message. What counts are the messages after the one
/// marked as the first, in the time between that and the last.
pub(super) fn drain(job: &Job, mut next: impl FnMut() -> Result<u64>) -> Result<Measured> {
    let base = payload::sum(&payload::template(job.case.size_bytes));
    let mut expected = 0;
    let (mut first, mut start) = (0, 0);
    loop {
        let number = next()?.wrapping_sub(base);
        if number != expected {
            match number ^ expected {
                START => (first, start) = (expected, monotonic_ns()),
                END => return Ok(measured(job, expected - first, monotonic_ns() - start)),
                _ => return Err(wrong(number, expected)),
            }
        }
        expected += 1;
    }
}

/// Sends a message, waits for the answer, and counts half of the time between two answers as one way. The clock is read
/// once a round.
pub(super) fn ping(
    job: &Job,
    mut send: impl FnMut(u64) -> Result<()>,
    mut receive: impl FnMut() -> Result<u64>,
) -> Result<Measured> {
    let mut times = Times::new()?;
    let begun = monotonic_ns();
    let (mut number, mut last) = (0, begun);
    let (mut first, mut start) = (None, begun);
    loop {
        send(number)?;
        let answer = receive()?;
        let now = monotonic_ns();
        if answer != number {
            return Err(wrong(answer, number));
        }
        number += 1;
        match first {
            None if now - begun >= job.warm_up_ns => (first, start) = (Some(number), now),
            None => {}
            Some(first) => {
                times.record((now - last) / 2);
                let done = match job.messages {
                    Some(messages) => number - first >= messages,
                    None => now - start >= job.duration_ns,
                };
                if done {
                    send(number | END)?;
                    receive()?;
                    let latency = Some(times.percentiles());
                    return Ok(Measured { latency, ..measured(job, number - first, now - start) });
                }
            }
        }
        last = now;
    }
}

/// The other side of [`ping`].
pub(super) fn pong(
    mut receive: impl FnMut() -> Result<u64>,
    mut send: impl FnMut(u64) -> Result<()>,
) -> Result<Measured> {
    let mut expected = 0;
    loop {
        let number = receive()?;
        send(number)?;
        if number == expected | END {
            return Ok(Measured::default());
        }
        if number != expected {
            return Err(wrong(number, expected));
        }
        expected += 1;
    }
}

/// Sends single messages at a pace, each with the time just before: `send(number, time)`.
pub(super) fn drip(job: &Job, mut send: impl FnMut(u64, u64) -> Result<()>) -> Result<Measured> {
    let mut number = 0;
    while number < around(job) {
        send(number, monotonic_ns())?;
        number += 1;
    }
    let begun = monotonic_ns();
    let mut due = begun;
    let (mut first, mut start) = (None, begun);
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
            send(number | END, monotonic_ns())?;
            return Ok(measured(job, number - first.unwrap_or(number), now - start));
        }
        if first.is_none() && now - begun >= job.warm_up_ns {
            (first, start) = (Some(number), now);
            send(number | START, monotonic_ns())?;
        } else {
            send(number, monotonic_ns())?;
        }
        number += 1;
    }
}

/// The other side of [`drip`]: `next` receives a message and says its number and the time it was sent.
pub(super) fn catch(job: &Job, mut next: impl FnMut() -> Result<(u64, u64)>) -> Result<Measured> {
    let mut times = Times::new()?;
    let mut expected = 0;
    let (mut first, mut start) = (None, 0);
    loop {
        let (number, sent) = next()?;
        let now = monotonic_ns();
        match number ^ expected {
            0 | START | END => {}
            _ => return Err(wrong(number, expected)),
        }
        if number & START != 0 {
            (first, start) = (Some(expected), now);
        }
        if first.is_some() {
            times.record(now.saturating_sub(sent));
        }
        if number & END != 0 {
            let latency = Some(times.percentiles());
            return Ok(Measured { latency, ..measured(job, expected - first.unwrap_or(expected), now - start) });
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

fn measured(job: &Job, messages: u64, elapsed_ns: u64) -> Measured {
    Measured { messages, bytes: messages * job.case.size_bytes, elapsed_ns, ..Measured::default() }
}

fn wrong(number: u64, expected: u64) -> Failure {
    Failure::Other(format!(
        "the transport is broken: message {expected} was expected, and the sum of what came stands for {}; a message was lost, \
         came twice, or has other bytes than were sent. Does anybody else write to the channel?",
        number & !(START | END)
    ))
}
