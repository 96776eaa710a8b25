//! A ring of ringfire with `LosslessBackpressure`. Its messages are values of one type, copied into a slot and out of it.

use std::fmt::Debug;
use std::hint::spin_loop;
use std::path::PathBuf;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use ringfire::{BusySpin, FlowControl, FutexWait, RingConsumer, RingProducer, RingProducerBuilder, YieldBackoff};

use super::Carrier;
use crate::flow::{Receiver, Sender};
use crate::job::{Job, Parent, Role};
use crate::plan::{Measure, Wait};
use crate::{Failure, Result, payload};

/// For messages of `B` bytes.
pub(super) struct Ringfire<const B: usize>;

/// A ring that its producer has not made yet is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

fn path(job: &Job, there: bool) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{}-ringfire-{}", job.prefix, if there { "there" } else { "back" }))
}

fn failed(what: &str, error: impl Debug) -> Failure {
    Failure::Other(format!("ringfire: {what}: {error:?}"))
}

fn template<const B: usize>() -> Result<Box<[u8; B]>> {
    payload::template(B as u64).try_into().map_err(|_| failed("size a message", B))
}

impl<const B: usize> Carrier for Ringfire<B> {
    type To = To<B>;
    type From = From<B>;

    fn sender(job: &Job, _: &mut Parent) -> Result<To<B>> {
        let there = job.role == Role::Writer;
        let slots = (job.case.capacity_bytes / B as u64).next_power_of_two();
        let ring = RingProducerBuilder::new(slots)
            .flow_control(FlowControl::LosslessBackpressure)
            .max_readers(if there { job.case.readers as usize } else { 1 })
            .build::<[u8; B], _>(path(job, there))
            .map_err(|e| failed("make a ring", e))?;
        Ok(To { ring, messages: vec![*template::<B>()?; job.case.batch as usize] })
    }

    fn receiver(job: &Job, _: &mut Parent) -> Result<From<B>> {
        let (path, begun) = (path(job, job.role == Role::Reader), Instant::now());
        let ring = loop {
            match RingConsumer::<[u8; B]>::builder().start_from_oldest().attach(&path) {
                Ok(ring) => break ring,
                Err(_) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(1)),
                Err(error) => return Err(failed("attach to a ring", error)),
            }
        };
        // The library's own ways to wait: the fastest that there is a processor for.
        let wait = match job.case.measure {
            Measure::Latency if job.case.wait == Wait::Sleep => Waits::Sleep(FutexWait::default()),
            _ if job.cpu.is_none() => Waits::Yield(YieldBackoff::default()),
            _ => Waits::Spin(BusySpin),
        };
        let messages = vec![[0; B]; job.case.batch as usize];
        Ok(From { ring, wait, messages, base: payload::base(B as u64), next: 0, found: 0 })
    }
}

pub(super) struct To<const B: usize> {
    ring: RingProducer<[u8; B]>,
    /// As many as are sent together.
    messages: Vec<[u8; B]>,
}

impl<const B: usize> Sender for To<B> {
    #[inline]
    fn send(&mut self, first: u64, count: u64) -> Result<()> {
        let mut numbers = first..first + count;
        while !numbers.is_empty() {
            let mut filled = 0;
            for (message, number) in self.messages.iter_mut().zip(&mut numbers) {
                payload::set(message, number);
                filled += 1;
            }
            match &self.messages[..filled] {
                [message] => self.ring.push(message),
                messages => self.ring.push_batch(messages),
            };
        }
        Ok(())
    }

    #[inline]
    fn send_stamped(&mut self, number: u64, time: u64) -> Result<()> {
        payload::stamp(&mut self.messages[0], number, time);
        self.ring.push(&self.messages[0]);
        Ok(())
    }
}

enum Waits {
    Spin(BusySpin),
    Yield(YieldBackoff),
    Sleep(FutexWait),
}

pub(super) struct From<const B: usize> {
    ring: RingConsumer<[u8; B]>,
    wait: Waits,
    /// Messages that were received together: the next one to look at, and how many there are.
    messages: Vec<[u8; B]>,
    next: usize,
    found: usize,
    base: u64,
}

impl<const B: usize> From<B> {
    #[inline(always)]
    fn next<T>(&mut self, look: impl Fn(&[u8]) -> T) -> T {
        if self.messages.len() == 1 {
            return look(&match &mut self.wait {
                Waits::Spin(wait) => self.ring.recv_blocking(wait),
                Waits::Yield(wait) => self.ring.recv_blocking(wait),
                Waits::Sleep(wait) => self.ring.recv_blocking(wait),
            });
        }
        while self.next == self.found {
            (self.next, self.found) = (0, self.ring.recv_batch(&mut self.messages));
            match self.wait {
                _ if self.found > 0 => {}
                Waits::Spin(_) => spin_loop(),
                _ => yield_now(),
            }
        }
        self.next += 1;
        look(&self.messages[self.next - 1])
    }
}

impl<const B: usize> Receiver for From<B> {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        let base = self.base;
        Ok(self.next(|message| payload::read(message, base)))
    }

    #[inline]
    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        let base = self.base;
        Ok(self.next(|message| payload::read_stamped(message, base)))
    }
}
