//! The daemon's standard input as a source. It ends when the input does.

use std::os::fd::AsFd;

use shm_proto::Result;
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing::input::Shared;

use super::Input;
use super::feed::{Feed, Stepped};

/// Standard input, or in tests something like it.
#[derive(Debug)]
pub(super) struct Stdin<T>(pub(super) T);

impl<T: AsFd + Send> Input for Stdin<T> {
    fn run(self: Box<Self>, feed: &mut Feed<'_>) -> Result<()> {
        // What a file ends with may be a shorter chunk.
        let mut pump = feed.cutting().pump()?;
        let mut input = Shared::new(self.0)?;
        feed.set(SourceState::Open);
        loop {
            match feed.step(&mut pump, &mut input)? {
                Stepped::Moved => {}
                Stepped::Idle => feed.wait_for(&input, None)?,
                Stepped::End => return Ok(()),
                Stepped::Short(e) => feed.wait_for_memory(&e)?,
                Stepped::Broken(e) => return Err(e),
            }
        }
    }
}
