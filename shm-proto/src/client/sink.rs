//! A ring's writer as the destination of a byte stream.

use crate::client::{Error, Result};
use crate::framing::{MessageSink, Slotted};
use crate::ring::Writer;

impl MessageSink for Writer {
    type Error = Error;

    /// Publishes a batch; messages that the channel's policy drops are counted as taken.
    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64> {
        let mut batch = self.batch();
        let mut taken = 0;
        for message in messages {
            batch.push(message)?;
            taken += 1;
        }
        batch.commit()?;
        Ok(taken)
    }

    fn publish_in_place(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<Slotted> {
        let Some(mut slot) = self.reserve(len)? else { return Ok(Slotted::Dropped) };
        match fill(&mut slot) {
            Some(used) => Ok(slot.commit(used).map(|_| Slotted::Published)?),
            None => Ok(Slotted::Nothing),
        }
    }
}
