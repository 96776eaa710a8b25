//! A pipe or a Unix stream socket: messages of one size, one after the other.

use std::fs::File;
use std::hint::spin_loop;
use std::io::{ErrorKind, Read, Write};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use shm_proto::Error;

use super::Carrier;
use crate::flow::{Receiver, Sender};
use crate::job::{Job, Parent, Role};
use crate::{Failure, Result, payload};

/// A reader asks for as much at a time as a pipe holds.
const READ: usize = 64 << 10;

pub(super) struct Stream;

impl Carrier for Stream {
    type To = To;
    type From = From;

    fn sender(job: &Job, parent: &mut Parent) -> Result<To> {
        let streams = if job.role == Role::Writer { job.case.readers } else { 1 };
        let to = (0..streams).map(|_| parent.take_fd().map(File::from)).collect::<Result<_>>()?;
        let message = payload::template(job.case.size_bytes);
        Ok(To { to, bytes: message.repeat(job.case.batch.max(1) as usize), size: message.len() })
    }

    fn receiver(job: &Job, parent: &mut Parent) -> Result<From> {
        let from = File::from(parent.take_fd()?);
        if job.case.polls() {
            let flags = fcntl(&from, FcntlArg::F_GETFL).map_err(|e| Error::system("get a stream's mode", e))?;
            let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
            fcntl(&from, FcntlArg::F_SETFL(flags)).map_err(|e| Error::system("make a stream nonblocking", e))?;
        }
        let size = usize::try_from(job.case.size_bytes).unwrap_or(usize::MAX);
        let (buffer, base) = (vec![0; READ.max(size)], payload::base(job.case.size_bytes));
        Ok(From { from, buffer, size, base, begin: 0, end: 0 })
    }
}

pub(super) struct To {
    to: Vec<File>,
    /// As many messages as go out in one write.
    bytes: Vec<u8>,
    size: usize,
}

impl To {
    #[inline]
    fn write(&mut self, len: usize) -> Result<()> {
        for to in &mut self.to {
            to.write_all(&self.bytes[..len]).map_err(|e| Error::system("write a message", e))?;
        }
        Ok(())
    }
}

impl Sender for To {
    fn send(&mut self, first: u64, count: u64) -> Result<()> {
        let mut numbers = first..first + count;
        while !numbers.is_empty() {
            let mut len = 0;
            for (message, number) in self.bytes.chunks_exact_mut(self.size).zip(&mut numbers) {
                payload::set(message, number);
                len += self.size;
            }
            self.write(len)?;
        }
        Ok(())
    }

    fn send_stamped(&mut self, number: u64, time: u64) -> Result<()> {
        payload::stamp(&mut self.bytes, number, time);
        self.write(self.size)
    }
}

/// Messages cut out of a stream.
pub(super) struct From {
    from: File,
    buffer: Vec<u8>,
    size: usize,
    base: u64,
    begin: usize,
    end: usize,
}

impl From {
    /// The next message; reads until it is whole, again at once where reading does not wait.
    fn next(&mut self) -> Result<&[u8]> {
        if self.end - self.begin < self.size {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            while self.end < self.size {
                match self.from.read(&mut self.buffer[self.end..]) {
                    Ok(0) => return Err(Failure::Other("the writer has gone".to_owned())),
                    Ok(n) => self.end += n,
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => spin_loop(),
                    Err(e) => return Err(Error::system("read a message", e).into()),
                }
            }
        }
        let begin = self.begin;
        self.begin += self.size;
        Ok(&self.buffer[begin..self.begin])
    }
}

impl Receiver for From {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        let base = self.base;
        Ok(payload::read(self.next()?, base))
    }

    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        let base = self.base;
        Ok(payload::read_stamped(self.next()?, base))
    }
}
