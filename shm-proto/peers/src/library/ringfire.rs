//! A ring with `LosslessBackpressure`. Its messages are values of one type, copied into a slot and out of it.

use std::hint::spin_loop;
use std::path::PathBuf;
use std::thread::yield_now;

use ringfire::{BusySpin, FlowControl, FutexWait, RingConsumer, RingProducer, RingProducerBuilder, YieldBackoff};

use super::{Peer, Receive, Received, Send, await_readers};
use crate::Result;
use crate::case::{Job, Measure};
use crate::flow::{look, stamp, template};

pub struct Ringfire;

fn path(job: &Job, channel: usize) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{}-ringfire-{channel}", job.prefix))
}

impl Peer for Ringfire {
    fn sender<const B: usize>(job: &Job, channel: usize, readers: u32) -> Result<impl Send> {
        let slots = (job.case.capacity_bytes / B).next_power_of_two() as u64;
        let ring = RingProducerBuilder::new(slots)
            .flow_control(FlowControl::LosslessBackpressure)
            .max_readers(readers as usize)
            .build::<[u8; B], _>(path(job, channel))?;
        let messages = if job.case.batch > 1 { vec![*template::<B>(); job.case.batch] } else { Vec::new() };
        Ok(Sender { ring, message: template::<B>(), messages, readers: readers as usize })
    }

    fn receiver<const B: usize>(job: &Job, channel: usize, _: u32) -> Result<impl Receive> {
        let ring = RingConsumer::<[u8; B]>::builder().start_from_oldest().attach(path(job, channel))?;
        // Its own ways to wait: the fastest that there is a processor for.
        let wait = match job.case.measure {
            Measure::Sleeping => Wait::Sleep(FutexWait::default()),
            _ if job.crowded => Wait::Yield(YieldBackoff::default()),
            _ => Wait::Spin(BusySpin),
        };
        let messages = vec![[0; B]; job.case.batch];
        Ok(Receiver { ring, wait, messages })
    }
}

struct Sender<const B: usize> {
    ring: RingProducer<[u8; B]>,
    message: Box<[u8; B]>,
    messages: Vec<[u8; B]>,
    readers: usize,
}

impl<const B: usize> Send for Sender<B> {
    fn begin(&mut self) -> Result<()> {
        let ring = &self.ring;
        await_readers(self.readers, || ring.registry().map_or(0, |registry| registry.active_readers(0).len()))
    }

    #[inline]
    fn send(&mut self, number: u64, time: u64) -> Result<()> {
        stamp(&mut self.message[..], number, time);
        self.ring.push(&self.message);
        Ok(())
    }

    #[inline]
    fn send_batch(&mut self, first: u64, count: usize) -> Result<()> {
        for (number, message) in (first..).zip(&mut self.messages[..count]) {
            stamp(message, number, 0);
        }
        self.ring.push_batch(&self.messages[..count]);
        Ok(())
    }
}

enum Wait {
    Spin(BusySpin),
    Yield(YieldBackoff),
    Sleep(FutexWait),
}

struct Receiver<const B: usize> {
    ring: RingConsumer<[u8; B]>,
    wait: Wait,
    messages: Vec<[u8; B]>,
}

impl<const B: usize> Receive for Receiver<B> {
    #[inline]
    fn each(&mut self, mut see: impl FnMut(Received) -> Result<()>) -> Result<()> {
        if self.messages.len() > 1 {
            let mut found = self.ring.recv_batch(&mut self.messages);
            while found == 0 {
                if let Wait::Spin(_) = self.wait {
                    spin_loop()
                } else {
                    yield_now()
                }
                found = self.ring.recv_batch(&mut self.messages);
            }
            return self.messages[..found].iter().try_for_each(|message| see(look(message)));
        }
        let message = match &mut self.wait {
            Wait::Spin(wait) => self.ring.recv_blocking(wait),
            Wait::Yield(wait) => self.ring.recv_blocking(wait),
            Wait::Sleep(wait) => self.ring.recv_blocking(wait),
        };
        see(look(&message))
    }
}
