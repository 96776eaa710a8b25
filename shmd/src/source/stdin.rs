//! The daemon's standard input as a source. It ends when the input does.

use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_proto::Result;

use super::Input;
use super::feed::{Feed, Stepped};
use super::report::State;

/// Standard input, or in tests something like it.
#[derive(Debug)]
pub(super) struct Stdin<T>(pub(super) T);

impl<T: AsFd + Send> Input for Stdin<T> {
    fn run(self: Box<Self>, feed: &mut Feed<'_>) -> Result<()> {
        // What a file ends with may be a shorter chunk.
        let mut pump = feed.cutting().pump()?;
        let mut input = Unwaiting(self.0);
        feed.set(State::Open);
        loop {
            match feed.step(&mut pump, &mut input)? {
                Stepped::Moved => {}
                Stepped::Idle => feed.wait_for(&input.0, None)?,
                Stepped::End => return Ok(()),
                Stepped::Broken(e) => return Err(e),
            }
        }
    }
}

/// Reads without waiting. The descriptor's own mode is left alone, because other processes share it.
struct Unwaiting<T>(T);

impl<T: AsFd> Read for Unwaiting<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO)? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(nix::unistd::read(&self.0, buffer)?)
    }
}
