//! A FIFO for each reader: one write a message, or a batch, and reads of as much as a pipe holds.

use std::fs::{File, OpenOptions};
use std::hint::spin_loop;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{Peer, Receive, Received, Send};
use crate::Result;
use crate::case::{Job, Measure};
use crate::flow::{look, stamp, template};

pub struct Pipe;

/// What a pipe holds.
const READ: usize = 64 << 10;

fn path(job: &Job, channel: usize, reader: u32) -> PathBuf {
    job.dir.join(format!("fifo-{channel}-{reader}"))
}

impl Peer for Pipe {
    fn sender<const B: usize>(job: &Job, channel: usize, readers: u32) -> Result<impl Send> {
        let paths: Vec<PathBuf> = (0..readers).map(|reader| path(job, channel, reader)).collect();
        for path in &paths {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        Ok(Sender { paths, to: Vec::new(), messages: template::<B>().repeat(job.case.batch), size: B })
    }

    fn receiver<const B: usize>(job: &Job, channel: usize, reader: u32) -> Result<impl Receive> {
        let busy = job.case.measure == Measure::Busy;
        let (path, buffer) = (path(job, channel, reader), vec![0; READ.max(B)]);
        Ok(Receiver { path, from: None, busy, buffer, begin: 0, end: 0, size: B })
    }
}

struct Sender {
    paths: Vec<PathBuf>,
    to: Vec<File>,
    messages: Vec<u8>,
    size: usize,
}

impl Sender {
    #[inline]
    fn write(&mut self, len: usize) -> Result<()> {
        Ok(self.to.iter_mut().try_for_each(|to| to.write_all(&self.messages[..len]))?)
    }
}

impl Send for Sender {
    /// Opening one side of a FIFO waits for the other.
    fn begin(&mut self) -> Result<()> {
        for path in &self.paths {
            self.to.push(OpenOptions::new().write(true).open(path)?);
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, number: u64, time: u64) -> Result<()> {
        stamp(&mut self.messages, number, time);
        self.write(self.size)
    }

    #[inline]
    fn send_batch(&mut self, first: u64, count: usize) -> Result<()> {
        for (number, message) in (first..).zip(self.messages.chunks_exact_mut(self.size).take(count)) {
            stamp(message, number, 0);
        }
        self.write(count * self.size)
    }
}

struct Receiver {
    path: PathBuf,
    from: Option<File>,
    busy: bool,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    size: usize,
}

impl Receive for Receiver {
    fn begin(&mut self) -> Result<()> {
        let from = File::open(&self.path)?;
        if self.busy {
            fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        self.from = Some(from);
        Ok(())
    }

    #[inline]
    fn each(&mut self, mut see: impl FnMut(Received) -> Result<()>) -> Result<()> {
        let from = self.from.as_mut().ok_or("the FIFO is not open")?;
        if self.end - self.begin < self.size {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        while self.end - self.begin < self.size {
            match from.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err("the writer has gone".into()),
                Ok(n) => self.end += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => spin_loop(),
                Err(e) => return Err(e.into()),
            }
        }
        let message = &self.buffer[self.begin..self.begin + self.size];
        self.begin += self.size;
        see(look(message))
    }
}
