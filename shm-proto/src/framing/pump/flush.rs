//! For inputs that pause within a chunk: publishing what has arrived.

use super::{MessageSink, Pump, Skip};
use crate::framing::Framing;

impl Pump {
    /// Publishes the beginning of a chunk that is not complete, as a message of its own. Returns the number of messages, which is
    /// 0 if nothing has arrived, and with other framings.
    ///
    /// # Errors
    /// The sink's errors. Then nothing was published, and it may be tried again.
    pub fn flush<S: MessageSink>(&mut self, sink: &mut S) -> Result<u64, S::Error> {
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
                    assert_eq!(pump.flush(&mut sink).unwrap(), u64::from(begun));
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
}
