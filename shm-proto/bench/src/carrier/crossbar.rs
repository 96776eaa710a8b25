//! A bounded `PodBus` of crossbar, whose writer waits for the slowest reader. Its messages are values of one type, copied into a
//! slot and out of it.

use std::fmt::Debug;
use std::hint::spin_loop;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use crossbar::error::Error;
use crossbar::{BusSubscriber, PodBus};

use super::Carrier;
use crate::flow::{Receiver, Sender};
use crate::job::{Job, Parent, Role};
use crate::{Failure, Result, payload};

/// For messages of `W` words. The library copies values by volatile loads and stores, which compilers make one by one for each
/// element: words take less than bytes, and large messages cannot be compiled.
pub(super) struct Crossbar<const W: usize>;

/// A bus that its writer has not made yet is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// A slot begins with a number, and has lines of its own.
const fn slot_bytes(message: u64) -> u64 {
    (message + 8).next_multiple_of(64)
}

fn name(job: &Job, there: bool) -> String {
    format!("{}-{}", job.prefix, if there { "there" } else { "back" })
}

fn failed(what: &str, error: impl Debug) -> Failure {
    Failure::Other(format!("crossbar: {what}: {error:?}"))
}

/// Both sides lock a file while they come, so that either may find the other one there.
fn patiently<T>(what: &str, attempt: impl Fn() -> Result<T, Error>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(made) => return Ok(made),
            Err(_) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(1)),
            Err(error) => return Err(failed(what, error)),
        }
    }
}

impl<const W: usize> Carrier for Crossbar<W> {
    type To = To<W>;
    type From = From<W>;

    fn sender(job: &Job, _: &mut Parent) -> Result<To<W>> {
        let name = name(job, job.role == Role::Writer);
        let slots = (job.case.capacity_bytes / slot_bytes(job.case.size_bytes)).max(2).next_power_of_two() as usize;
        let bus = patiently("make a bus", || PodBus::create_bounded(&name, slots, 0))?;
        let template = payload::template(job.case.size_bytes);
        let words: Vec<u64> = template.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let message = words.try_into().map_err(|_| failed("size a message", W))?;
        Ok(To { bus, message, crowded: job.cpu.is_none() })
    }

    fn receiver(job: &Job, _: &mut Parent) -> Result<From<W>> {
        let name = name(job, job.role == Role::Reader);
        let bus = patiently("attach to a bus", || BusSubscriber::connect(&name))?;
        Ok(From { bus, base: payload::base(job.case.size_bytes), crowded: job.cpu.is_none() })
    }
}

/// Looks for a message or for space before a process that has no processor of its own lets others run.
const LOOKS: u32 = 64;

pub(super) struct To<const W: usize> {
    bus: PodBus<[u64; W]>,
    message: [u64; W],
    crowded: bool,
}

impl<const W: usize> To<W> {
    #[inline(always)]
    fn publish(&mut self) {
        if !self.crowded {
            // Spins until there is space.
            return self.bus.publish(self.message);
        }
        let mut looks = 0;
        while self.bus.try_publish(self.message).is_err() {
            looks += 1;
            if looks > LOOKS { yield_now() } else { spin_loop() }
        }
    }
}

impl<const W: usize> Sender for To<W> {
    /// Messages are sent one by one: the library has no batches.
    #[inline]
    fn send(&mut self, first: u64, count: u64) -> Result<()> {
        for number in first..first + count {
            self.message[0] = number;
            self.publish();
        }
        Ok(())
    }

    #[inline]
    fn send_stamped(&mut self, number: u64, time: u64) -> Result<()> {
        self.message[0] = number;
        self.message[1] = time;
        self.publish();
        Ok(())
    }
}

pub(super) struct From<const W: usize> {
    bus: BusSubscriber<[u64; W]>,
    base: u64,
    crowded: bool,
}

impl<const W: usize> From<W> {
    /// The library has no way to sleep until a message comes.
    #[inline(always)]
    fn next<T>(&mut self, look: impl Fn(&[u64]) -> T) -> T {
        let mut looks = 0;
        loop {
            if let Some(message) = self.bus.try_recv() {
                return look(&message);
            }
            looks += 1;
            if self.crowded && looks > LOOKS { yield_now() } else { spin_loop() }
        }
    }
}

#[inline(always)]
fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

impl<const W: usize> Receiver for From<W> {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        let base = self.base;
        Ok(self.next(|message| sum(message).wrapping_sub(base)))
    }

    #[inline]
    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        let base = self.base;
        Ok(self.next(|message| {
            let time = message[1];
            (payload::number(sum(message), base, time), time)
        }))
    }
}
