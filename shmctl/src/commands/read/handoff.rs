//! Reading where messages are handed over one at a time: each is acknowledged when it has been written out.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::HandoffReader as Attached;
use shm_proto::internal::handoff::{Names, Reader, Received, WriterSign};
use shm_proto::internal::os::clock;
use shm_proto::{Error, HandoffError};

use super::session::{End, Session};
use super::writer_watch::WriterWatch;
use crate::error::{Failure, Result, note};
use crate::output::{has_gone, wait_for};

/// How often the output and signals are looked at while a message is waited for.
const LOOK: Duration = Duration::from_millis(250);
/// Without a daemon: after the writer has removed the objects, new ones are looked for no sooner than this.
const PAUSE: Duration = Duration::from_millis(50);

/// A reader with a daemon or without.
pub(super) trait Taking {
    fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, HandoffError>;
    fn acknowledge(&mut self);
    /// Leaves the last message to another reader.
    fn give_back(&mut self);
    /// What is to be seen of the writer, where nobody says when it ends.
    fn writer(&self) -> Option<WriterSign>;
    /// What the messages come through.
    fn names(&self) -> &Names;
    /// The channel's name, or what stands for it.
    fn label(&self) -> String;
}

impl Taking for Reader {
    fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, HandoffError> {
        Reader::recv_until(self, into, until_ns)
    }
    fn acknowledge(&mut self) {
        Reader::acknowledge(self);
    }
    fn give_back(&mut self) {
        Reader::give_back(self);
    }
    fn writer(&self) -> Option<WriterSign> {
        self.writer_sign()
    }
    fn names(&self) -> &Names {
        Reader::names(self)
    }
    fn label(&self) -> String {
        Reader::names(self).segment.to_string()
    }
}

impl Taking for Attached {
    fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, HandoffError> {
        Attached::recv_until(self, into, until_ns)
    }
    fn acknowledge(&mut self) {
        Attached::acknowledge(self);
    }
    fn give_back(&mut self) {
        Attached::give_back(self);
    }
    fn writer(&self) -> Option<WriterSign> {
        // The daemon's connection says it.
        None
    }
    fn names(&self) -> &Names {
        Attached::names(self)
    }
    fn label(&self) -> String {
        self.facts().channel.to_string()
    }
}

impl Session {
    /// Takes messages without a daemon, and with `follow` also those of the next writer.
    pub(super) fn take_from(&mut self, names: &Names, follow: bool) -> Result<Option<End>> {
        match self.take_over(&mut Reader::new(names.clone())) {
            Err(Failure::Library(Error::Handoff(closed @ HandoffError::Closed { .. }))) if follow => {
                note(&format!("{closed}; waiting for it"));
                self.sleep(&[], PAUSE)
            }
            end => end,
        }
    }

    /// Takes messages until there is a reason to end.
    pub(super) fn take_over(&mut self, reader: &mut dyn Taking) -> Result<Option<End>> {
        if self.since_ns.is_some() {
            return Err(Failure::Other(format!(
                "channel {}: it hands one message over at a time, and its messages have no publish times, which --since needs; \
                 leave --since out",
                reader.label()
            )));
        }
        let (mut bytes, mut watch) = (Vec::new(), WriterWatch::default());
        loop {
            let pause = self.pause();
            if !pause.is_zero() {
                match self.rest(pause)? {
                    None => continue,
                    end => return Ok(end),
                }
            }
            let wait = if self.until_empty { Duration::ZERO } else { self.until_silence().min(LOOK) };
            let until = clock::after(wait);
            let received = reader.recv_until(&mut bytes, until)?;
            if watch.notices(Instant::now(), received.is_some(), || reader.writer()) {
                let segment = &reader.names().segment;
                note(&format!(
                    "the writer of {segment} is gone and has not removed it, probably because it was killed; waiting \
                     for the next writer (SIGINT or --timeout ends the wait)"
                ));
            }
            if let Some(received) = received {
                watch.rest();
                if received.recovered {
                    note("a peer died inside the mutex; the mutex was recovered");
                }
                let before = self.received;
                if !self.write_and_acknowledge(reader, &bytes)? {
                    return Ok(Some(End::Done));
                }
                if self.received > before {
                    self.last = Instant::now();
                }
                if self.left == Some(0) {
                    return Ok(Some(End::Done));
                }
            }
            let mut output = [PollFd::new(self.output.as_fd(), PollFlags::empty())];
            wait_for(&mut output, Duration::ZERO)?;
            let gone = has_gone(&output[0]);
            if self.until_empty && received.is_none() {
                return Ok(Some(End::Done));
            }
            if let Some(end) = self.after_wait(gone, received.is_some() && self.is_unfiltered())? {
                return Ok(Some(end));
            }
        }
    }

    /// Writes a message out and acknowledges it. A message that cannot be written, or not as a whole because a signal has ended
    /// the wait for the output, is given back. Returns whether it was written.
    fn write_and_acknowledge(&mut self, reader: &mut dyn Taking, bytes: &[u8]) -> Result<bool> {
        let taken = self.take_handed_over(&reader.label(), bytes);
        let written = taken.and_then(|()| self.output.flush(&self.signals));
        if matches!(written, Ok(true)) {
            reader.acknowledge();
        } else {
            reader.give_back();
        }
        written
    }
}
