//! Messages copied out, one after the other.

use super::{Reader, Received};
use crate::ring::reader::error::Result;

/// A message that was copied out of the shared memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedMessage {
    /// The message's number.
    pub seq: u64,
    /// How many messages before it were lost to overwriting.
    pub lost_before: u64,
    /// When it was published: see [`Message::published_ns`](super::Message::published_ns).
    pub published_ns: Option<u64>,
    /// The payload.
    pub bytes: Vec<u8>,
}

impl OwnedMessage {
    pub(crate) fn new(received: Received, bytes: Vec<u8>) -> OwnedMessage {
        let Received { seq, lost_before, published_ns } = received;
        OwnedMessage { seq, lost_before, published_ns, bytes }
    }
}

/// The messages of a [`Reader`], copied out; see [`Reader::messages`].
#[derive(Debug)]
#[must_use = "an iterator receives nothing by itself"]
pub struct Messages<'a> {
    reader: &'a mut Reader,
    is_over: bool,
}

impl Reader {
    /// Messages as an iterator that copies each of them out, and waits for each without a time limit. The iterator ends
    /// when the channel is closed, or after an error with which the attachment ends. A message that is overwritten
    /// while it is copied counts as lost before the next one.
    ///
    /// ```no_run
    /// # use shm_proto::{Endpoint, Reader, Start};
    /// let mut reader = Reader::attach(&Endpoint::find(None), None, Start::Oldest)?;
    /// for message in reader.messages().take(10) {
    ///     let message = message?;
    ///     println!("message {}: {}", message.seq, String::from_utf8_lossy(&message.bytes));
    /// }
    /// # Ok::<(), shm_proto::Error>(())
    /// ```
    pub fn messages(&mut self) -> Messages<'_> {
        Messages { reader: self, is_over: false }
    }
}

impl Iterator for Messages<'_> {
    type Item = Result<OwnedMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let mut bytes = Vec::new();
        match self.reader.recv_into(&mut bytes, None) {
            Ok(received) => Some(Ok(OwnedMessage::new(received, bytes))),
            Err(error) => {
                self.is_over = error.ends_attachment();
                (!error.is_closed()).then_some(Err(error))
            }
        }
    }
}
