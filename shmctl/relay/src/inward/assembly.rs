//! Joining the parts of large messages.

use bytes::Bytes;

use crate::envelope::Part;

/// A message whose parts have begun to come.
#[derive(Debug)]
struct Begun {
    lineage: u64,
    seq: u64,
    /// The message of the stream with its first part.
    stream_seq: u64,
    total: u64,
    bytes: Vec<u8>,
    /// The messages of the stream with the parts that have come, in order.
    parts: Vec<u64>,
}

/// What has become of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Others have to come.
    Begun,
    /// The whole message, which began in this message of the stream.
    Whole { stream_seq: u64, bytes: Vec<u8> },
    /// Nothing goes before it.
    Stray,
}

#[derive(Debug, Default)]
pub(super) struct Assembly(Option<Begun>);

impl Assembly {
    /// The message of the stream with the first part of what has begun.
    pub(super) fn begun(&self) -> Option<u64> {
        self.0.as_ref().map(|begun| begun.stream_seq)
    }

    /// Whether this message of the stream is a part of what has begun.
    pub(super) fn contains(&self, stream_seq: u64) -> bool {
        self.0.as_ref().is_some_and(|begun| begun.parts.binary_search(&stream_seq).is_ok())
    }

    /// Forgets what has begun: the sender begins anew.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Adds a part.
    pub(super) fn add(&mut self, stream_seq: u64, lineage: u64, seq: u64, part: Part, bytes: &Bytes) -> Joined {
        if part.offset == 0 {
            // Room for what has come, and not for what is announced.
            self.0 = Some(Begun { lineage, seq, stream_seq, total: part.total, bytes: Vec::new(), parts: Vec::new() });
        }
        let fits = |begun: &&mut Begun| {
            (begun.lineage, begun.seq, begun.total, begun.bytes.len() as u64) == (lineage, seq, part.total, part.offset)
        };
        let Some(begun) = self.0.as_mut().filter(fits) else {
            self.clear();
            return Joined::Stray;
        };
        begun.bytes.extend_from_slice(bytes);
        begun.parts.push(stream_seq);
        if (begun.bytes.len() as u64) < begun.total {
            return Joined::Begun;
        }
        let stream_seq = begun.stream_seq;
        let bytes = std::mem::take(&mut begun.bytes);
        self.clear();
        Joined::Whole { stream_seq, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(assembly: &mut Assembly, stream_seq: u64, seq: u64, offset: u64, bytes: &'static [u8]) -> Joined {
        assembly.add(stream_seq, 7, seq, Part { offset, total: 6 }, &Bytes::from_static(bytes))
    }

    #[test]
    fn parts_in_order_make_a_message() {
        let mut assembly = Assembly::default();
        assert_eq!(add(&mut assembly, 10, 1, 0, b"ab"), Joined::Begun);
        assert_eq!(add(&mut assembly, 11, 1, 2, b"cd"), Joined::Begun);
        assert_eq!(assembly.begun(), Some(10));
        assert_eq!([9, 10, 11, 12].map(|stream_seq| assembly.contains(stream_seq)), [false, true, true, false]);
        assert_eq!(add(&mut assembly, 12, 1, 4, b"ef"), Joined::Whole { stream_seq: 10, bytes: b"abcdef".to_vec() });
        assert_eq!(assembly.begun(), None);
    }

    #[test]
    fn a_message_may_begin_anew_and_strays_are_told() {
        let mut assembly = Assembly::default();
        assert_eq!(add(&mut assembly, 10, 1, 2, b"cd"), Joined::Stray);
        assert_eq!(add(&mut assembly, 11, 1, 0, b"xx"), Joined::Begun);
        assert_eq!(add(&mut assembly, 12, 1, 0, b"ab"), Joined::Begun);
        assert_eq!(add(&mut assembly, 13, 2, 2, b"cd"), Joined::Stray);
        assert_eq!(add(&mut assembly, 14, 1, 2, b"cdef"), Joined::Stray);
        assert_eq!(
            add(&mut assembly, 15, 1, 0, b"abcdef"),
            Joined::Whole { stream_seq: 15, bytes: b"abcdef".to_vec() }
        );
    }
}
