//! The least that the processes need: what the ring is held against in the same run.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use shm_proto::Error;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::sem::{Semaphore, Wait as Woken};
use shm_proto::internal::os::slots::{Shape, SlotReader, SlotWriter};
use shm_proto::internal::ring::layout::ReaderPage;

use super::{Job, Role, Stand, flow, payload};
use crate::commands::bench::outcome::Measured;
use crate::commands::bench::plan::{Case, Wait};
use crate::error::{Failure, Result};

/// A message over this is passed on in pieces of it, so that copying and reading overlap.
const PIECE: u64 = 64 << 10;
/// Bytes of all slots: they stay in the second cache.
const SLOTS_BYTES: u64 = 256 << 10;

/// The slots for a case.
pub(in crate::commands::bench) fn slots_of(case: &Case) -> Shape {
    let size = case.size_bytes.min(PIECE).next_multiple_of(64);
    let bytes = if case.readers == 1 { SLOTS_BYTES } else { case.capacity_bytes };
    let count = (bytes / size).clamp(32, 4096).next_power_of_two();
    let count = count.max(u64::from(case.batch) * 2).next_power_of_two();
    Shape { size: size as usize, count, readers: case.readers }
}

pub(super) fn slots(job: &Job, stand: &mut Stand) -> Result<Measured> {
    let shape = slots_of(&job.case);
    let size = shape.size;
    let fd = stand.take_fd()?;
    match job.role {
        Role::Writer => {
            let mut slots = SlotWriter::open(fd.as_fd(), shape, u64::from(job.case.batch))?;
            stand.ready()?;
            let mut message = payload::template(job.case.size_bytes);
            flow::flood(job, |first, count| {
                for number in first..first + count {
                    payload::set(&mut message, number);
                    // The usual size of a slot is known to the compiler, as it is in a program for one type of message.
                    match <&[u8; 64]>::try_from(&*message) {
                        Ok(line) => slots.put(line),
                        Err(_) => message.chunks(size).for_each(|piece| slots.put(piece)),
                    }
                }
                slots.flush();
                Ok(())
            })
        }
        Role::Reader => {
            let mut slots = SlotReader::open(fd.as_fd(), shape, job.reader)?;
            stand.ready()?;
            let len = job.case.size_bytes as usize;
            if len == 64 {
                return flow::drain(job, || Ok(slots.sum(64)));
            }
            let (pieces, last) = (len / size, len % size);
            flow::drain(job, || {
                let mut sum = 0u64;
                for _ in 0..pieces {
                    sum = sum.wrapping_add(slots.sum(size));
                }
                if last > 0 {
                    sum = sum.wrapping_add(slots.sum(last));
                }
                Ok(sum)
            })
        }
    }
}

pub(super) fn latency(job: &Job, stand: &mut Stand) -> Result<Measured> {
    let page = SharedPage::<ReaderPage>::open(stand.take_fd()?.as_fd())?;
    match job.case.wait {
        Wait::Busy => lines(job, stand, &page),
        Wait::Sleep => semaphore(job, stand, &page),
    }
}

/// Two cache lines, one a way: what one message and its answer cost at least.
fn lines(job: &Job, stand: &mut Stand, page: &ReaderPage) -> Result<Measured> {
    let (there, back) = (&page.line.cursor, &page.space_wanted.value);
    // No number of a message, so that nothing is taken for the first one.
    const NOTHING: u64 = u64::MAX;
    let (ours, theirs) = if job.role == Role::Writer { (there, back) } else { (back, there) };
    ours.store(NOTHING, Ordering::Release);
    let mut last = NOTHING;
    let send = |number| {
        // Release, Acquire: as the header of a message and the look at it.
        ours.store(number, Ordering::Release);
        Ok(())
    };
    let receive = || {
        loop {
            let number = theirs.load(Ordering::Acquire);
            if number != last {
                last = number;
                return Ok(number);
            }
        }
    };
    stand.ready()?;
    if job.role == Role::Writer { flow::ping(job, send, receive) } else { flow::pong(receive, send) }
}

/// A semaphore: what waking a sleeper costs at least.
fn semaphore(job: &Job, stand: &mut Stand, page: &ReaderPage) -> Result<Measured> {
    let (number, time, taken) = (&page.line.seq, &page.line.heartbeat, &page.line.received);
    let semaphore = Semaphore::new(&page.wake);
    stand.ready()?;
    match job.role {
        Role::Writer => {
            let mut posted = 0;
            flow::drip(job, |this, now| {
                // There is one place for number and time: a reader that was held up has not looked at them yet.
                let mut now = now;
                while taken.load(Ordering::Acquire) != posted {
                    std::thread::yield_now();
                    now = monotonic_ns();
                }
                posted += 1;
                number.store(this, Ordering::Relaxed);
                time.store(now, Ordering::Relaxed);
                semaphore.post();
                Ok(())
            })
        }
        Role::Reader => flow::catch(job, || {
            let begun = Instant::now();
            loop {
                match semaphore.wait_until(u64::MAX) {
                    Woken::Posted => {
                        let seen = (number.load(Ordering::Relaxed), time.load(Ordering::Relaxed));
                        taken.fetch_add(1, Ordering::Release);
                        return Ok(seen);
                    }
                    Woken::Interrupted => {}
                    Woken::TimedOut => {
                        let what = "a post of the semaphore".to_owned();
                        return Err(Failure::from(Error::TimedOut { what, waited: begun.elapsed() }));
                    }
                }
            }
        }),
    }
}
