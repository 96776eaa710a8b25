//! Reading where messages are handed over one at a time: each is acknowledged when it has been written out.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::Error;
use shm_proto::handoff::{Attached, Reader, Received};
use shm_proto::os::clock::monotonic_ns;

use super::follow::{End, Session};
use crate::error::{Result, note};
use crate::output::{has_gone, wait_for};

/// How often the output and signals are looked at while a message is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// A reader with a daemon or without.
pub(super) trait Taking {
    fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, Error>;
    fn acknowledge(&mut self);
}

impl Taking for Reader {
    fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, Error> {
        Reader::recv_until(self, into, until_ns)
    }
    fn acknowledge(&mut self) {
        Reader::acknowledge(self);
    }
}

impl Taking for Attached {
    fn recv_until(&mut self, into: &mut Vec<u8>, until_ns: u64) -> Result<Option<Received>, Error> {
        Attached::recv_until(self, into, until_ns)
    }
    fn acknowledge(&mut self) {
        Attached::acknowledge(self);
    }
}

impl Session {
    /// Takes messages until there is a reason to end.
    pub(super) fn take_over(&mut self, reader: &mut dyn Taking) -> Result<End> {
        let mut bytes = Vec::new();
        loop {
            let wait = self.until_silence().min(LOOK);
            let until = monotonic_ns() + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
            let received = match reader.recv_until(&mut bytes, until) {
                Ok(received) => received,
                Err(error) => return Ok(End::Detached(error)),
            };
            if let Some(received) = received {
                if received.recovered {
                    note("a peer died inside the mutex; it was recovered");
                }
                self.format.append_bytes(self.received, 0, &bytes, self.output.buffer());
                self.output.flush(&self.signals)?;
                reader.acknowledge();
                self.received += 1;
                self.last = Instant::now();
                if let Some(left) = &mut self.left {
                    *left -= 1;
                }
                if self.left == Some(0) {
                    return Ok(End::Done);
                }
            }
            let mut output = [PollFd::new(self.output.as_fd(), PollFlags::empty())];
            wait_for(&mut output, Duration::ZERO)?;
            let gone = has_gone(&output[0]);
            if let Some(end) = self.after_wait(gone, received.is_some())? {
                return Ok(end);
            }
        }
    }
}
