//! The daemon's standard input as a source. It ends when the input does.

use std::io;
use std::os::fd::AsFd;

use shm_proto::Result;
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing::Pump;
use shm_proto::internal::framing::input::Shared;

use super::feed::{Feed, Stepped};
use super::packed_pump::PackedPump;
use super::{Input, PackedInput};
use crate::handover::Parcel;

/// Standard input, or in tests something like it.
#[derive(Debug)]
pub(super) struct Stdin<T> {
    pub(super) input: T,
    /// None before the beginning.
    pub(super) pump: Option<Pump>,
}

impl<T: AsFd + Send + std::fmt::Debug> Input for Stdin<T> {
    fn run(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        // What a file ends with may be a shorter chunk.
        let pump = match &mut self.pump {
            Some(pump) => pump,
            none => none.insert(feed.cutting().pump()?),
        };
        let mut input = Shared::new(self.input.as_fd())?;
        feed.set(SourceState::Open);
        loop {
            match feed.step(pump, &mut input)? {
                Stepped::Moved => {}
                Stepped::Idle => feed.wait_for(&input, pump.flush_in())?,
                Stepped::End => return Ok(()),
                Stepped::Short(e) => feed.wait_for_memory(&e)?,
                Stepped::Broken(e) => return Err(e),
            }
        }
    }

    fn pack(&self, parcel: &mut Parcel) -> io::Result<PackedInput> {
        // The descriptor is the same in any program.
        let pump = self.pump.as_ref().map(|pump| PackedPump::pack(pump, parcel)).transpose()?;
        Ok(PackedInput::Stdin(pump))
    }
}
