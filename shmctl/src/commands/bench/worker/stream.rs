//! Both sides of a pipe or a Unix stream socket: messages of one size, one after the other.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use shm_proto::Error;

use super::payload::{self, STAMP};
use super::{Job, Role, Stand, flow};
use crate::commands::bench::outcome::Measured;
use crate::commands::bench::plan::Wait;
use crate::error::{Failure, Result};

/// What a reader asks for at a time, as much as a pipe holds.
const READ: usize = 64 << 10;

pub(super) fn throughput(job: &Job, stand: &mut Stand) -> Result<Measured> {
    match job.role {
        Role::Writer => {
            let mut to = Vec::new();
            for _ in 0..job.case.readers {
                to.push(File::from(stand.take_fd()?));
            }
            stand.ready()?;
            let mut pack = Pack::new(job);
            flow::flood(job, |first, count| pack.send(&mut to, first, count))
        }
        Role::Reader => {
            let mut from = Messages::new(stand.take_fd()?.into(), job);
            stand.ready()?;
            flow::drain(job, || from.next().map(payload::sum))
        }
    }
}

/// As many messages as go out in one write.
struct Pack {
    bytes: Vec<u8>,
    size: usize,
}

impl Pack {
    fn new(job: &Job) -> Self {
        let message = payload::template(job.case.size_bytes);
        Pack { bytes: message.repeat(job.case.batch.max(1) as usize), size: message.len() }
    }

    fn send(&mut self, to: &mut [File], first: u64, count: u64) -> Result<()> {
        let mut numbers = first..first + count;
        while !numbers.is_empty() {
            let mut len = 0;
            for (message, number) in self.bytes.chunks_exact_mut(self.size).zip(&mut numbers) {
                payload::set(message, number);
                len += self.size;
            }
            for to in to.iter_mut() {
                to.write_all(&self.bytes[..len]).map_err(write_failed)?;
            }
        }
        Ok(())
    }
}

/// Messages cut out of a stream.
struct Messages {
    from: File,
    buffer: Vec<u8>,
    size: usize,
    begin: usize,
    end: usize,
}

impl Messages {
    fn new(from: File, job: &Job) -> Self {
        let size = usize::try_from(job.case.size_bytes).unwrap_or(usize::MAX);
        Messages { from, buffer: vec![0; READ.max(size)], size, begin: 0, end: 0 }
    }

    /// The next message; reads until it is whole, again at once where reading does not wait.
    fn next(&mut self) -> Result<&[u8]> {
        if self.end - self.begin < self.size {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            while self.end < self.size {
                match self.from.read(&mut self.buffer[self.end..]) {
                    Ok(0) => return Err(Failure::Other("the writer has gone".to_owned())),
                    Ok(n) => self.end += n,
                    Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                        std::hint::spin_loop();
                    }
                    Err(e) => return Err(Error::system("read a message", e).into()),
                }
            }
        }
        let begin = self.begin;
        self.begin += self.size;
        Ok(&self.buffer[begin..self.begin])
    }
}

pub(super) fn latency(job: &Job, stand: &mut Stand) -> Result<Measured> {
    let mut message = payload::template(job.case.size_bytes);
    let base = payload::sum(&message);
    let mut to = File::from(stand.take_fd()?);
    let from = File::from(stand.take_fd()?);
    if job.case.wait == Wait::Busy {
        let flags = fcntl(&from, FcntlArg::F_GETFL).map_err(|e| Error::system("look at a stream's mode", e))?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&from, FcntlArg::F_SETFL(flags)).map_err(|e| Error::system("make a stream nonblocking", e))?;
    }
    let mut from = Messages::new(from, job);
    stand.ready()?;
    let mut send = |number| {
        payload::set(&mut message, number);
        to.write_all(&message).map_err(write_failed)
    };
    let receive = || Ok(payload::sum(from.next()?).wrapping_sub(base));
    match (job.role, job.case.wait) {
        (Role::Writer, Wait::Busy) => flow::ping(job, send, receive),
        (Role::Reader, Wait::Busy) => flow::pong(receive, &mut send),
        (Role::Writer, Wait::Sleep) => flow::drip(job, |number, time| {
            payload::set(&mut message, number);
            message[STAMP].copy_from_slice(&time.to_le_bytes());
            to.write_all(&message).map_err(write_failed)
        }),
        // The template has a 1 where a time is.
        (Role::Reader, Wait::Sleep) => flow::catch(job, || {
            let message = from.next()?;
            let time = payload::stamp(message);
            Ok((payload::sum(message).wrapping_sub(base).wrapping_add(1).wrapping_sub(time), time))
        }),
    }
}

fn write_failed(e: std::io::Error) -> Failure {
    Error::system("write a message", e).into()
}
