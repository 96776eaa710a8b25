//! The bytes of a source.

use std::io::{self, Read};

use shm_proto::FramingError;
use shm_proto::internal::framing::{Framing, Input, MessageSink, Pump, Slotted, Step};

use crate::bytes::Bytes;

/// An input that arrives in pieces of a size, with nothing to read between them if the size is small, and that may know how much
/// there is.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
    knows: bool,
    pauses: bool,
    paused: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.paused = self.pauses && !self.paused && !self.rest.is_empty();
        if self.paused {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = self.rest.len().min(self.piece).min(into.len());
        into[..n].copy_from_slice(&self.rest[..n]);
        self.rest = &self.rest[n..];
        Ok(n)
    }
}

impl Input for Pieces<'_> {
    fn readable(&self) -> Option<usize> {
        self.knows.then(|| self.rest.len().min(self.piece))
    }
}

/// A list of messages.
#[derive(Debug, Default)]
struct List {
    messages: Vec<Vec<u8>>,
    has_places: bool,
}

impl MessageSink for List {
    type Error = FramingError;

    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64, FramingError> {
        let before = self.messages.len();
        self.messages.extend(messages.map(<[u8]>::to_vec));
        Ok((self.messages.len() - before) as u64)
    }

    fn publish_in_place(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<Slotted, FramingError> {
        if !self.has_places {
            return Ok(Slotted::NoPlace);
        }
        let mut slot = vec![0xEE; len];
        let Some(filled) = fill(&mut slot) else { return Ok(Slotted::Nothing) };
        slot.truncate(filled);
        self.messages.push(slot);
        Ok(Slotted::Published)
    }
}

/// What comes out: the messages, and whether an error ended them.
fn cut(mut input: impl Input, mut pump: Pump, has_places: bool, most_steps: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let mut sink = List { has_places, ..List::default() };
    for _ in 0..most_steps {
        match pump.step(&mut input, &mut sink) {
            Ok(Step::Eof) => {
                assert_eq!(pump.published(), sink.messages.len() as u64);
                return (sink.messages, None);
            }
            Ok(_) => {}
            Err(e) => return (sink.messages, Some(e.to_string())),
        }
    }
    panic!("the input has no end");
}

pub(super) fn run(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let framing = match bytes.byte() % 4 {
        0 => Framing::Lines,
        1 => Framing::Nul,
        2 => Framing::Length,
        _ => Framing::Chunk(u64::from(bytes.half()).max(1)),
    };
    let max = match bytes.byte() % 3 {
        0 => u64::from(bytes.byte()),
        1 => u64::from(bytes.half()),
        _ => 1 << 20,
    };
    let flags = bytes.byte();
    let [keep, whole, knows, places, pauses, larger] = [1, 2, 4, 8, 16, 32].map(|bit| flags & bit != 0);
    let piece = usize::from(bytes.half()).max(1);
    // A record that is long enough to be read in place.
    let long = if larger { [bytes.rest(), &[b'x'; 40_000], bytes.rest()].concat() } else { bytes.rest().to_vec() };
    let pump = || {
        let pump = Pump::new(framing, max).ok()?.keeping_delimiters(keep);
        Some(if whole { pump.requiring_whole_chunks() } else { pump })
    };
    let (Some(first), Some(second)) = (pump(), pump()) else { return };
    let at_once = cut(&long[..], first, false, long.len() + 8);
    let pieces = Pieces {
        rest: &long,
        piece: if long.len() > 9000 { piece.max(64) } else { piece },
        knows,
        pauses,
        paused: false,
    };
    let in_pieces = cut(pieces, second, places, 4 * long.len() + 64);
    assert_eq!(at_once.1.is_some(), in_pieces.1.is_some(), "{:?} and {:?}", at_once.1, in_pieces.1);
    assert!(at_once.0 == in_pieces.0, "{framing}: {} and {} messages", at_once.0.len(), in_pieces.0.len());
}
