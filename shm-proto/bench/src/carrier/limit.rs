//! The least that the processes need: what the ring is compared with in the same run.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use shm_proto::ReaderError;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::sem::{Semaphore, Wait as Woken};
use shm_proto::internal::ring::layout::ReaderPage;

use super::Carrier;
use crate::flow::{Receiver, Sender};
use crate::job::{Job, Parent, Role};
use crate::plan::Case;
use crate::slots::{Shape, SlotReader, SlotWriter};
use crate::{Result, payload};

/// A longer message is passed on in pieces of this size, so that copying and reading overlap.
const PIECE: u64 = 64 << 10;
/// Bytes of all slots: they stay in the second cache.
const SLOTS_BYTES: u64 = 256 << 10;

/// The slots for a case.
pub(crate) fn slots_of(case: &Case) -> Shape {
    let size = case.size_bytes.min(PIECE).next_multiple_of(64);
    let bytes = if case.readers == 1 { SLOTS_BYTES } else { case.capacity_bytes };
    let count = (bytes / size).clamp(32, 4096).next_power_of_two();
    let count = count.max(u64::from(case.batch) * 2).next_power_of_two();
    Shape { size: size as usize, count, readers: case.readers }
}

/// A one-to-one ring of fixed slots.
pub(super) struct Slots;

impl Carrier for Slots {
    type To = SlotsTo;
    type From = SlotsFrom;

    fn sender(job: &Job, parent: &mut Parent) -> Result<SlotsTo> {
        let shape = slots_of(&job.case);
        let slots = SlotWriter::open(parent.take_fd()?.as_fd(), shape, u64::from(job.case.batch))?;
        Ok(SlotsTo { slots, size: shape.size, message: payload::template(job.case.size_bytes) })
    }

    fn receiver(job: &Job, parent: &mut Parent) -> Result<SlotsFrom> {
        let shape = slots_of(&job.case);
        let slots = SlotReader::open(parent.take_fd()?.as_fd(), shape, job.reader)?;
        let len = job.case.size_bytes as usize;
        let (pieces, last) = (len / shape.size, len % shape.size);
        Ok(SlotsFrom { slots, size: shape.size, pieces, last, base: payload::base(job.case.size_bytes) })
    }
}

pub(super) struct SlotsTo {
    slots: SlotWriter,
    size: usize,
    message: Vec<u8>,
}

impl Sender for SlotsTo {
    #[inline]
    fn send(&mut self, first: u64, count: u64) -> Result<()> {
        for number in first..first + count {
            payload::set(&mut self.message, number);
            // The usual size of a slot is known to the compiler, as it is in a program for one type of message.
            match <&[u8; 64]>::try_from(&*self.message) {
                Ok(line) => self.slots.put(line),
                Err(_) => self.message.chunks(self.size).for_each(|piece| self.slots.put(piece)),
            }
        }
        self.slots.flush();
        Ok(())
    }
}

pub(super) struct SlotsFrom {
    slots: SlotReader,
    size: usize,
    pieces: usize,
    last: usize,
    base: u64,
}

impl Receiver for SlotsFrom {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        if (self.size, self.pieces, self.last) == (64, 1, 0) {
            return Ok(self.slots.sum(64).wrapping_sub(self.base));
        }
        let mut sum = 0u64;
        for _ in 0..self.pieces {
            sum = sum.wrapping_add(self.slots.sum(self.size));
        }
        if self.last > 0 {
            sum = sum.wrapping_add(self.slots.sum(self.last));
        }
        Ok(sum.wrapping_sub(self.base))
    }
}

type Page = SharedPage<ReaderPage>;

/// Two cache lines, one for each way: what one message and its answer cost at least.
pub(super) struct Lines;

impl Carrier for Lines {
    type To = Line;
    type From = Line;

    fn sender(job: &Job, parent: &mut Parent) -> Result<Line> {
        let line =
            Line { page: Page::open(parent.take_fd()?.as_fd())?, there: job.role == Role::Writer, last: NOTHING };
        line.word().store(NOTHING, Ordering::Release);
        Ok(line)
    }

    fn receiver(job: &Job, parent: &mut Parent) -> Result<Line> {
        Ok(Line { page: Page::open(parent.take_fd()?.as_fd())?, there: job.role == Role::Reader, last: NOTHING })
    }
}

/// No number of a message, so that nothing is taken for the first one.
const NOTHING: u64 = u64::MAX;

/// The word for one way.
pub(super) struct Line {
    page: Page,
    there: bool,
    last: u64,
}

impl Line {
    #[inline(always)]
    fn word(&self) -> &AtomicU64 {
        if self.there { &self.page.line.cursor } else { &self.page.space_wanted.value }
    }
}

impl Sender for Line {
    #[inline]
    fn send(&mut self, first: u64, _: u64) -> Result<()> {
        // Release pairs with the Acquire in `receive`, as the header of a message does with the look at it.
        self.word().store(first, Ordering::Release);
        Ok(())
    }
}

impl Receiver for Line {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        loop {
            let number = self.word().load(Ordering::Acquire);
            if number != self.last {
                self.last = number;
                return Ok(number);
            }
        }
    }
}

/// A semaphore: what waking a sleeper costs at least.
pub(super) struct Post;

impl Carrier for Post {
    type To = PostTo;
    type From = PostFrom;

    fn sender(_: &Job, parent: &mut Parent) -> Result<PostTo> {
        Ok(PostTo { page: Page::open(parent.take_fd()?.as_fd())?, posted: 0 })
    }

    fn receiver(_: &Job, parent: &mut Parent) -> Result<PostFrom> {
        Ok(PostFrom(Page::open(parent.take_fd()?.as_fd())?))
    }
}

pub(super) struct PostTo {
    page: Page,
    posted: u64,
}

impl Sender for PostTo {
    fn send(&mut self, first: u64, _: u64) -> Result<()> {
        self.send_stamped(first, 0)
    }

    #[inline]
    fn send_stamped(&mut self, number: u64, time: u64) -> Result<()> {
        let mut time = time;
        // Number and time have one place: a reader that was held up has not looked at them yet. Acquire pairs with the
        // Release in `receive_stamped`.
        while self.page.line.received.load(Ordering::Acquire) != self.posted {
            std::thread::yield_now();
            time = monotonic_ns();
        }
        self.posted += 1;
        self.page.line.seq.store(number, Ordering::Relaxed);
        self.page.line.heartbeat.store(time, Ordering::Relaxed);
        Semaphore::new(&self.page.wake).post();
        Ok(())
    }
}

pub(super) struct PostFrom(Page);

impl Receiver for PostFrom {
    fn receive(&mut self) -> Result<u64> {
        Ok(self.receive_stamped()?.0)
    }

    #[inline]
    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        let line = &self.0.line;
        let begun = Instant::now();
        loop {
            match Semaphore::new(&self.0.wake).wait_until(u64::MAX) {
                Woken::Posted => {
                    let seen = (line.seq.load(Ordering::Relaxed), line.heartbeat.load(Ordering::Relaxed));
                    line.received.fetch_add(1, Ordering::Release);
                    return Ok(seen);
                }
                Woken::Interrupted => {}
                Woken::TimedOut => {
                    let what = "a post of the semaphore".to_owned();
                    return Err(ReaderError::TimedOut { what, waited: begun.elapsed() }.into());
                }
            }
        }
    }
}
