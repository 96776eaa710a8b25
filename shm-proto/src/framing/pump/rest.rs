//! Leaving an input to another pump, in another process perhaps: nothing of what was read is lost or taken twice.

use serde::{Deserialize, Serialize};

use super::{Pump, Skip};

/// Where a pump stands. Framing, limits and the treatment of delimiters are not part of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PumpState {
    in_pieces: bool,
    dropped: bool,
    skip: Skip,
    look_again: bool,
    last: bool,
    ended: bool,
    published: u64,
    /// What was read and is not published.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

impl Pump {
    /// After the sink has failed: it had taken this number of the messages of that step.
    pub fn have_been_taken(&mut self, messages: u64) {
        if self.last {
            return;
        }
        let mut cut = self.cut();
        let passed_over = u64::from(self.dropped && (&mut cut).next().is_some());
        let taken = passed_over + (&mut cut).take(usize::try_from(messages).unwrap_or(usize::MAX)).count() as u64;
        self.start = self.end - cut.rest.len();
        self.searched = 0;
        self.published += taken;
        self.in_pieces &= taken == 0;
        self.dropped &= passed_over == 0;
        // There may be more whole messages, which no input tells of.
        self.look_again = !self.unread().is_empty();
    }

    /// What was read and is not published: the number of whole messages, and the bytes of an incomplete message after them.
    #[must_use]
    pub fn left(&self) -> (u64, usize) {
        if self.last {
            return (u64::from(!self.dropped), 0);
        }
        let mut cut = self.cut();
        let passed_over = u64::from(self.dropped);
        let whole = (&mut cut).count() as u64;
        (whole.saturating_sub(passed_over), cut.rest.len())
    }

    /// What another pump needs to go on.
    #[must_use]
    pub fn state(&self) -> PumpState {
        let Self { in_pieces, dropped, skip, look_again, last, ended, published, .. } = *self;
        PumpState { in_pieces, dropped, skip, look_again, last, ended, published, bytes: self.unread().to_vec() }
    }

    /// Goes on where another pump has stopped that cut in the same way.
    #[must_use]
    pub fn going_on(self, state: PumpState) -> Self {
        let PumpState { in_pieces, dropped, skip, look_again, last, ended, published, bytes } = state;
        let (start, end, searched) = (0, bytes.len(), 0);
        let mut pump = Self {
            in_pieces,
            dropped,
            skip,
            look_again,
            last,
            ended,
            published,
            start,
            end,
            searched,
            buffer: bytes,
            ..self
        };
        pump.begin_flush();
        pump
    }
}

#[cfg(test)]
mod tests {
    use crate::error::SystemError;
    use crate::framing::error::FramingError;
    use crate::framing::pump::tests::Pieces;
    use crate::framing::{Framing, MessageSink, Pump, Slotted, Step};

    /// Takes this many messages, fails once, and so on.
    struct Tires {
        messages: Vec<Vec<u8>>,
        after: usize,
        left: usize,
        taken: u64,
    }

    impl Tires {
        fn tired() -> FramingError {
            SystemError::new("take a message", std::io::Error::other("tired")).into()
        }
    }

    impl MessageSink for Tires {
        type Error = FramingError;

        fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64, FramingError> {
            self.taken = 0;
            for message in messages {
                if self.left == 0 {
                    self.left = self.after;
                    return Err(Self::tired());
                }
                self.messages.push(message.to_vec());
                (self.left, self.taken) = (self.left - 1, self.taken + 1);
            }
            Ok(self.taken)
        }

        fn publish_in_place(
            &mut self,
            len: usize,
            fill: impl FnOnce(&mut [u8]) -> Option<usize>,
        ) -> Result<Slotted, FramingError> {
            self.taken = 0;
            if self.left == 0 {
                self.left = self.after;
                return Err(Self::tired());
            }
            let mut slot = vec![0; len];
            let Some(used) = fill(&mut slot) else { return Ok(Slotted::Nothing) };
            slot.truncate(used);
            self.messages.push(slot);
            self.left -= 1;
            Ok(Slotted::Published)
        }
    }

    #[test]
    fn what_is_left_is_counted_in_whole_messages_and_the_bytes_of_the_rest() {
        for (framing, input, taken, left) in [
            (Framing::Lines, &b"ab\nc\n\nde"[..], 0, (3, 2)),
            (Framing::Lines, b"ab\nc\n\nde", 2, (1, 2)),
            (Framing::Lines, b"ab\n", 0, (1, 0)),
            (Framing::Lines, b"ab", 0, (0, 2)),
            (Framing::Chunk(3), b"abcdefg", 1, (1, 1)),
            (Framing::Length, b"\x01\0\0\0a\x02\0\0\0b", 0, (1, 5)),
        ] {
            let mut pump = Pump::new(framing, 1 << 20).unwrap();
            let mut sink = Tires { messages: Vec::new(), after: 0, left: taken, taken: 0 };
            let mut pieces = Pieces::cut(input, &[input.len()]).that_knows(true);
            let failed = pump.step(&mut pieces, &mut sink).is_err();
            assert_eq!(failed, left.0 > 0, "{framing} {input:?}");
            pump.have_been_taken(sink.taken);
            assert_eq!(pump.left(), left, "{framing} {input:?} {taken}");
        }
    }

    #[test]
    fn every_message_is_taken_once_however_often_the_sink_fails_and_another_pump_goes_on() {
        let lines: Vec<Vec<u8>> =
            (0..40).map(|n: usize| format!("{n}:{}", "x".repeat(n * n * 40)).into_bytes()).collect();
        let joined = |end: u8| lines.iter().flat_map(|line| line.iter().copied().chain([end])).collect::<Vec<u8>>();
        let prefixed = lines.iter().flat_map(|line| (line.len() as u32).to_le_bytes().into_iter().chain(line.clone()));
        for (framing, mut input) in
            [(Framing::Lines, joined(b'\n')), (Framing::Nul, joined(0)), (Framing::Length, prefixed.collect())]
        {
            if framing != Framing::Length {
                // The last message has no delimiter.
                input.pop();
            }
            for after in [1, 2, 3, 7] {
                for piece in [1000, 7777, 100_000] {
                    let new = || Pump::new(framing, 1 << 20).unwrap();
                    let mut pump = new();
                    let mut pieces = Pieces::cut(&input, &[piece]).that_knows(true);
                    let mut sink = Tires { messages: Vec::new(), after, left: 0, taken: 0 };
                    loop {
                        match pump.step(&mut pieces, &mut sink) {
                            Ok(Step::Eof) => break,
                            Ok(_) => {}
                            Err(_) => {
                                pump.have_been_taken(sink.taken);
                                let text = serde_json::to_string(&pump.state()).unwrap();
                                let mut state: super::PumpState = serde_json::from_str(&text).unwrap();
                                state.bytes = pump.state().bytes;
                                pump = new().going_on(state);
                            }
                        }
                    }
                    assert!(sink.messages == lines, "{framing} {after} {piece}: {} messages", sink.messages.len());
                    assert_eq!(pump.published(), lines.len() as u64);
                }
            }
        }
    }
}
