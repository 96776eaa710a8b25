//! For inputs that pause within a chunk: publishing what has arrived.

use std::time::Duration;

use super::{MessageSink, Pump, Skip, Step};
use crate::framing::error::Result;
use crate::framing::{Framing, Input};
use crate::os::clock;

/// When the beginning of a chunk is published although the rest has not come.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// This long after its first byte.
    after: Option<Duration>,
    /// The moment for the chunk that has begun.
    due_ns: Option<u64>,
}

impl Flush {
    /// A step has completed this number of messages, and has left this number of bytes of an incomplete message.
    fn note(&mut self, completed: u64, unfinished: usize) {
        let begins = completed > 0 || self.due_ns.is_none();
        self.due_ns = match self.after {
            Some(_) if unfinished > 0 && !begins => self.due_ns,
            // What is left has come just now.
            Some(after) if unfinished > 0 => Some(clock::after(after)),
            _ => None,
        };
    }

    fn is_due(&self) -> bool {
        self.due_ns.is_some_and(|due_ns| clock::monotonic_ns() >= due_ns)
    }
}

impl Pump {
    /// Publishes a chunk that is not full this long after its first byte, as a message of its own. Other framings have no messages
    /// that could be published in part ([`Framing::refuses_flush`]).
    #[must_use]
    pub fn flushing_after(mut self, time: Option<Duration>) -> Self {
        self.flush.after = time.filter(|_| self.framing.refuses_flush().is_none());
        self
    }

    /// The time until a step publishes the beginning of a chunk; nothing if none has begun. A caller that waits for input waits no
    /// longer than this.
    #[must_use]
    pub fn flush_in(&self) -> Option<Duration> {
        self.flush.due_ns.map(clock::left)
    }

    /// The time of a chunk that has begun starts now.
    pub(super) fn begin_flush(&mut self) {
        self.flush.note(0, self.unfinished());
    }

    /// Reads what one read gives, or what completes one large message, and publishes the messages it completes.
    ///
    /// This waits if the input waits inside `read`, unless the input returns [`std::io::ErrorKind::WouldBlock`]. The sink
    /// may wait as well.
    ///
    /// # Errors
    /// [`FramingError::BadInput`] for a message over the limit and for a record cut short by the end of the input,
    /// [`FramingError::NoMemory`] when there is no memory for the bytes of a message, [`FramingError::System`] when reading
    /// fails, and the sink's errors.
    ///
    /// [`FramingError::BadInput`]: crate::FramingError::BadInput
    /// [`FramingError::NoMemory`]: crate::FramingError::NoMemory
    /// [`FramingError::System`]: crate::FramingError::System
    pub fn step<S: MessageSink>(&mut self, input: &mut impl Input, sink: &mut S) -> Result<Step, S::Error> {
        let step = self.read_once(input, sink)?;
        let completed = if let Step::Published(messages) = step { messages } else { 0 };
        self.flush.note(completed, self.unfinished());
        if !self.flush.is_due() {
            return Ok(step);
        }
        let flushed = self.publish_beginning(sink)?;
        self.flush.note(flushed, self.unfinished());
        Ok(if flushed > 0 { Step::Published(completed + flushed) } else { step })
    }

    /// Publishes the beginning of a chunk that is not complete. Returns the number of messages, which is 0 if nothing has arrived,
    /// and with other framings.
    ///
    /// # Errors
    /// The sink's errors. Then nothing was published, and it may be tried again.
    fn publish_beginning<S: MessageSink>(&mut self, sink: &mut S) -> Result<u64, S::Error> {
        let is_chunk = matches!(self.framing, Framing::Chunk(_));
        if !is_chunk || self.unread().is_empty() || self.skip != Skip::Nothing || self.last {
            return Ok(0);
        }
        let beginning = (!self.dropped).then_some(&self.buffer[self.start..self.end]);
        sink.publish_all(beginning.into_iter())?;
        self.published += 1;
        self.clear();
        Ok(1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::framing::pump::tests::{List, Pieces};
    use crate::framing::{Framing, Pump, Step};

    /// The messages of an input that is flushed whenever it pauses.
    fn flushed(framing: Framing, max: u64, pieces: &[usize], input: &[u8]) -> Vec<Vec<u8>> {
        let (mut pump, mut sink) = (Pump::new(framing, max).unwrap(), List::new(true));
        let mut input = Pieces::cut(input, pieces).that_knows(true);
        loop {
            match pump.step(&mut input, &mut sink).unwrap() {
                Step::Published(_) => {}
                Step::WouldBlock => {
                    let begun = pump.unfinished() > 0 && matches!(framing, Framing::Chunk(_));
                    assert_eq!(pump.publish_beginning(&mut sink).unwrap(), u64::from(begun));
                }
                Step::Eof => break,
            }
        }
        assert_eq!(pump.published(), sink.messages.len() as u64);
        sink.messages
    }

    #[test]
    fn the_beginning_of_a_chunk_is_a_message_and_the_next_chunk_begins_behind_it() {
        assert_eq!(flushed(Framing::Chunk(4), 4, &[6, 1], b"abcdefghij"), [&b"abcd"[..], b"ef", b"g", b"hij"]);
        // Large chunks, which are read in place if they are there.
        let input = vec![7; 200_000];
        let lengths: Vec<_> = flushed(Framing::Chunk(50_000), 50_000, &[70_000], &input).iter().map(Vec::len).collect();
        assert_eq!(lengths, [50_000, 20_000, 50_000, 20_000, 50_000, 10_000]);
    }

    #[test]
    fn other_framings_wait_for_the_end_of_their_messages() {
        assert_eq!(flushed(Framing::Lines, 9, &[2], b"abc\nd"), [&b"abc"[..], b"d"]);
        assert_eq!(flushed(Framing::Length, 9, &[3], b"\x02\0\0\0ab"), [b"ab"]);
    }

    #[test]
    fn a_stream_is_published_as_it_arrives_and_no_longer_than_a_message_may_be() {
        assert_eq!(flushed(Framing::Stream, 4, &[3, 6], b"abcdefghij"), [&b"abc"[..], b"defg", b"hi", b"j"]);
        assert!(flushed(Framing::Stream, 4, &[1], b"").is_empty());
        let refused = Pump::new(Framing::Stream, 0).unwrap_err().to_string();
        assert!(refused.contains("a byte is over the channel's limit of 0 bytes"), "{refused}");
    }

    #[test]
    fn the_time_begins_with_the_first_byte_of_a_chunk_and_ends_with_the_last() {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut input = Pieces::cut(b"abcdefgh", &[1, 1, 4]).that_knows(true);
        let mut sink = List::new(true);
        let mut pump = Pump::new(Framing::Chunk(4), 9).unwrap().flushing_after(Some(HOUR));
        assert_eq!(pump.flush_in(), None);
        let mut left = Vec::new();
        loop {
            match pump.step(&mut input, &mut sink).unwrap() {
                Step::Published(_) => left.push((pump.unfinished(), pump.flush_in())),
                Step::WouldBlock => {}
                Step::Eof => break,
            }
        }
        let whole: Vec<_> = left.iter().filter(|(unfinished, _)| *unfinished == 0).collect();
        assert!(!whole.is_empty() && whole.iter().all(|(_, left)| left.is_none()), "{left:?}");
        let begun: Vec<_> =
            left.iter().filter(|(unfinished, _)| *unfinished > 0).map(|(_, left)| left.unwrap()).collect();
        assert!(begun.len() >= 2 && begun.iter().all(|left| *left <= HOUR), "{left:?}");
        // The second byte of a chunk does not begin it anew.
        assert!(begun[1] <= begun[0], "{left:?}");
        assert_eq!(sink.messages, [b"abcd", b"efgh"]);
    }

    #[test]
    fn what_is_due_is_published_by_the_next_step_and_only_chunks_are() {
        for (framing, wanted) in [(Framing::Chunk(4), 3), (Framing::Lines, 1), (Framing::Stream, 3)] {
            let mut input = Pieces::cut(b"abcde", &[2, 1]).that_knows(true);
            let mut sink = List::new(true);
            let mut pump = Pump::new(framing, 9).unwrap().flushing_after(Some(Duration::ZERO));
            while pump.step(&mut input, &mut sink).unwrap() != Step::Eof {
                assert!(framing == Framing::Lines || pump.unfinished() == 0, "{framing}");
                assert_eq!(pump.flush_in(), None, "{framing}");
            }
            assert_eq!((sink.messages.concat(), sink.messages.len()), (b"abcde".to_vec(), wanted), "{framing}");
        }
    }
}
