//! When to send, what to check, when to take the time: the same for every library.
//!
//! A message's first word is its number, its second the time it was sent where that is measured; the others are known. So the
//! sum of all words is a check of all bytes.

use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use shm_proto::internal::os::clock::monotonic_ns;

use crate::Result;
use crate::case::{Job, Latency, Measured};
use crate::library::{Receive, Received, Send};

/// On the number of the first message that counts.
const START: u64 = 1 << 62;
/// On the number of the last message.
const END: u64 = 1 << 63;
/// Bytes and messages between two looks at the clock.
const LOOK: (usize, usize) = (256 << 10, 4096);
/// A message to a sleeping reader is sent so often.
const PACE: Duration = Duration::from_millis(1);

/// The bytes of message 0 at time 0.
pub fn template<const B: usize>() -> Box<[u8; B]> {
    let mut bytes = Box::new([0; B]);
    for (n, word) in bytes.chunks_exact_mut(8).enumerate().skip(2) {
        word.copy_from_slice(&(n as u64).to_le_bytes());
    }
    bytes
}

/// Sets number and time.
#[inline(always)]
pub fn stamp(message: &mut [u8], number: u64, time: u64) {
    message[..8].copy_from_slice(&number.to_le_bytes());
    message[8..16].copy_from_slice(&time.to_le_bytes());
}

/// Looks at all bytes.
#[inline(always)]
pub fn look(message: &[u8]) -> Received {
    let (words, _) = message.as_chunks::<8>();
    let sum = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    Received { sum, time: u64::from_le_bytes(words[1]) }
}

/// The number of a message that is what it should be.
#[inline(always)]
fn number(received: Received, base: u64) -> u64 {
    received.sum.wrapping_sub(base).wrapping_sub(received.time)
}

fn base<const B: usize>() -> u64 {
    look(&template::<B>()[..]).sum
}

fn wrong<T>(number: u64, expected: u64) -> Result<T> {
    Err(format!("message {number:#x} instead of {expected:#x}, or its bytes are not what was sent").into())
}

/// Sends as fast as it goes.
pub fn flood<const B: usize>(job: &Job, to: &mut impl Send) -> Result<Measured> {
    let batch = job.case.batch;
    let look = (LOOK.0 / B).clamp(1, LOOK.1).next_multiple_of(batch);
    let mut next = 0;
    // The first time around maps the memory.
    let around = 2 * (job.case.capacity_bytes / B) as u64;
    let begun = monotonic_ns();
    while next < around || monotonic_ns() - begun < job.warm_up_ns {
        next = send_some(to, next, look, batch)?;
    }
    to.send(next | START, 0)?;
    let (first, start) = (next, monotonic_ns());
    next += 1;
    while monotonic_ns() - start < job.duration_ns {
        next = send_some(to, next, look, batch)?;
    }
    to.send(next | END, 0)?;
    Ok(Measured { messages: next - first, elapsed_ns: monotonic_ns() - start, latency: None })
}

/// Sends so many messages; returns the number of the next one.
#[inline(always)]
fn send_some(to: &mut impl Send, first: u64, count: usize, batch: usize) -> Result<u64> {
    let end = first + count as u64;
    for number in (first..end).step_by(batch) {
        if batch == 1 { to.send(number, 0)? } else { to.send_batch(number, batch)? }
    }
    Ok(end)
}

/// Receives what [`flood`] sends. What counts are the messages after the one marked as the first, in the time from that to
/// the last.
pub fn drain<const B: usize>(from: &mut impl Receive) -> Result<Measured> {
    let base = base::<B>();
    let mut expected = 0;
    let (mut first, mut start) = (0, 0);
    let mut measured = None;
    while measured.is_none() {
        from.each(|received| {
            let number = number(received, base);
            if number != expected {
                match number ^ expected {
                    START => (first, start) = (expected, monotonic_ns()),
                    END => {
                        let elapsed_ns = monotonic_ns() - start;
                        measured = Some(Measured { messages: expected - first, elapsed_ns, latency: None });
                    }
                    _ => return wrong(number, expected),
                }
            }
            expected += 1;
            Ok(())
        })?;
    }
    Ok(measured.unwrap_or_default())
}

/// Sends a message, waits for its answer, and takes half of the time between two answers; looks at the clock once a round.
pub fn ping<const B: usize>(job: &Job, to: &mut impl Send, from: &mut impl Receive) -> Result<Measured> {
    let base = base::<B>();
    let mut times = times()?;
    let begun = monotonic_ns();
    let (mut next, mut last) = (0, begun);
    loop {
        to.send(next, 0)?;
        let mut answer = None;
        from.each(|received| {
            answer = Some(number(received, base));
            Ok(())
        })?;
        let now = monotonic_ns();
        match answer {
            Some(answer) if answer == next => next += 1,
            other => return wrong(other.unwrap_or_default(), next),
        }
        if now - begun >= job.warm_up_ns {
            times.record((now - last) / 2)?;
        }
        if now - begun >= job.warm_up_ns + job.duration_ns {
            to.send(next | END, 0)?;
            return Ok(with(&times, now - begun));
        }
        last = now;
    }
}

/// Answers [`ping`].
pub fn pong<const B: usize>(from: &mut impl Receive, to: &mut impl Send) -> Result<Measured> {
    let base = base::<B>();
    let mut done = false;
    while !done {
        from.each(|received| {
            let number = number(received, base);
            done = number & END != 0;
            if done { Ok(()) } else { to.send(number, 0) }
        })?;
    }
    Ok(Measured::default())
}

/// Sends messages at a pace, each with the time just before.
pub fn drip(job: &Job, to: &mut impl Send) -> Result<Measured> {
    let pace = PACE.as_nanos() as u64;
    let last = (job.warm_up_ns + job.duration_ns).div_ceil(pace);
    let mut due = monotonic_ns();
    for number in 0..=last {
        due = (due + pace).max(monotonic_ns());
        while let left @ 1.. = due.saturating_sub(monotonic_ns()) {
            thread::sleep(Duration::from_nanos(left));
        }
        let first = if number == job.warm_up_ns.div_ceil(pace) { START } else { 0 };
        let end = if number == last { END } else { 0 };
        to.send(number | first | end, monotonic_ns())?;
    }
    Ok(Measured::default())
}

/// Receives what [`drip`] sends.
pub fn catch<const B: usize>(from: &mut impl Receive) -> Result<Measured> {
    let base = base::<B>();
    let mut times = times()?;
    let (mut expected, mut start, mut end) = (0, None, None);
    while end.is_none() {
        from.each(|received| {
            let now = monotonic_ns();
            let number = number(received, base);
            if number & !(START | END) != expected {
                return wrong(number, expected);
            }
            expected += 1;
            if number & START != 0 {
                start = Some(now);
            }
            if start.is_some() {
                times.record(now.saturating_sub(received.time))?;
            }
            if number & END != 0 {
                end = Some(now);
            }
            Ok(())
        })?;
    }
    Ok(with(&times, end.unwrap_or_default() - start.unwrap_or_default()))
}

fn times() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

fn with(times: &Histogram<u64>, elapsed_ns: u64) -> Measured {
    let latency = Latency { p50_ns: times.value_at_quantile(0.5), p99_ns: times.value_at_quantile(0.99) };
    Measured { messages: times.len(), elapsed_ns, latency: Some(latency) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_wrong_shows() {
        let base = base::<64>();
        let mut message = template::<64>();
        stamp(&mut message[..], END | 7, 99);
        assert_eq!(number(look(&message[..]), base), END | 7);
        for byte in 0..64 {
            message[byte] ^= 1;
            let seen = number(look(&message[..]), base);
            // The time is whatever it is.
            assert_eq!(seen == END | 7, (8..16).contains(&byte), "byte {byte}");
            message[byte] ^= 1;
        }
    }
}
