//! A `block` channel of a shmd of its own.
//!
//! Messages are published by copying, which is one pass over the bytes, as filling them in place is.

use std::hint::spin_loop;

use shm_proto::{ChannelName, Endpoint, Message, Reader, Start, Writer};

use super::{Peer, Receive, Received, Send};
use crate::Result;
use crate::case::{Job, Measure};
use crate::daemon::CHANNELS;
use crate::flow::{stamp, template};

pub struct ShmProto;

impl Peer for ShmProto {
    fn sender<const B: usize>(job: &Job, channel: usize, _: u32) -> Result<impl Send> {
        let name: ChannelName = CHANNELS[channel].parse()?;
        let writer = Writer::attach(&Endpoint::in_dir(&job.dir), Some(&name))?;
        Ok(Sender { writer, message: template::<B>() })
    }

    fn receiver<const B: usize>(job: &Job, channel: usize, _: u32) -> Result<impl Receive> {
        let name: ChannelName = CHANNELS[channel].parse()?;
        let reader = Reader::attach(&Endpoint::in_dir(&job.dir), Some(&name), Start::New)?;
        Ok(Receiver { reader, busy: job.case.measure == Measure::Busy, batch: job.case.batch })
    }
}

struct Sender<const B: usize> {
    writer: Writer,
    message: Box<[u8; B]>,
}

impl<const B: usize> Send for Sender<B> {
    #[inline]
    fn send(&mut self, number: u64, time: u64) -> Result<()> {
        stamp(&mut self.message[..], number, time);
        self.writer.publish(&self.message[..])?;
        Ok(())
    }

    #[inline]
    fn send_batch(&mut self, first: u64, count: usize) -> Result<()> {
        let mut batch = self.writer.batch();
        for number in first..first + count as u64 {
            stamp(&mut self.message[..], number, 0);
            batch.push(&self.message[..])?;
        }
        Ok(batch.commit()?)
    }
}

struct Receiver {
    reader: Reader,
    busy: bool,
    batch: usize,
}

impl Receive for Receiver {
    #[inline]
    fn each(&mut self, mut see: impl FnMut(Received) -> Result<()>) -> Result<()> {
        if self.busy {
            loop {
                if let Some(message) = self.reader.try_recv()? {
                    return see(look(message)?);
                }
                spin_loop();
            }
        }
        // Spins for some microseconds, then sleeps.
        see(look(self.reader.recv(None)?)?)?;
        if self.batch > 1 {
            let mut more = self.reader.batch(self.batch);
            while let Some(message) = more.next()? {
                see(look(message)?)?;
            }
        }
        Ok(())
    }
}

#[inline(always)]
fn look(message: Message<'_>) -> Result<Received> {
    let time = message.words().nth(1).unwrap_or_default();
    let sum = message.words().fold(0, u64::wrapping_add);
    message.finish()?;
    Ok(Received { sum, time })
}
