mod any_cut;
mod passing_over;

use std::collections::VecDeque;
use std::io::Read;

use super::*;

/// Messages as they were published, and how.
pub(super) struct List {
    pub(super) messages: Vec<Vec<u8>>,
    in_place: usize,
    has_places: bool,
    /// Drops this many messages that are offered a place.
    to_drop: usize,
    /// How often a place was asked for.
    pub(super) asked: usize,
}

impl List {
    pub(super) fn new(has_places: bool) -> Self {
        List { messages: Vec::new(), in_place: 0, has_places, to_drop: 0, asked: 0 }
    }
}

impl MessageSink for List {
    type Error = FramingError;

    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64> {
        let before = self.messages.len();
        self.messages.extend(messages.map(<[u8]>::to_vec));
        Ok((self.messages.len() - before) as u64)
    }

    fn publish_in_place(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<Slotted> {
        self.asked += 1;
        if !self.has_places {
            return Ok(Slotted::NoPlace);
        }
        if self.to_drop > 0 {
            self.to_drop -= 1;
            return Ok(Slotted::Dropped);
        }
        let mut slot = vec![0xEE; len];
        Ok(match fill(&mut slot) {
            Some(filled) => {
                slot.truncate(filled);
                self.messages.push(slot);
                self.in_place += 1;
                Slotted::Published
            }
            None => Slotted::Nothing,
        })
    }
}

/// An input that arrives in pieces, with nothing to read between them, and that may know how much there is to read.
pub(super) struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    knows: bool,
}

impl Pieces {
    pub(super) fn cut(bytes: &[u8], sizes: &[usize]) -> Self {
        let (mut pieces, mut rest, mut sizes) = (VecDeque::new(), bytes, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            pieces.push_back(piece.to_vec());
            pieces.push_back(Vec::new());
            rest = more;
        }
        Pieces { pieces, knows: false }
    }

    pub(super) fn that_knows(self, knows: bool) -> Self {
        Pieces { knows, ..self }
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(0) };
        if piece.is_empty() {
            self.pieces.pop_front();
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = piece.len().min(into.len());
        into[..n].copy_from_slice(&piece[..n]);
        piece.drain(..n);
        if piece.is_empty() && self.pieces.len() > 1 {
            self.pieces.pop_front();
        }
        Ok(n)
    }
}

impl Input for Pieces {
    fn readable(&self) -> Option<usize> {
        self.knows.then(|| self.pieces.front().map_or(0, Vec::len))
    }
}

fn pump(framing: Framing, max: u64, input: &mut impl Input, sink: &mut List) -> Result<u64> {
    let mut pump = Pump::new(framing, max)?;
    loop {
        if pump.step(input, sink)? == Step::Eof {
            assert_eq!(pump.step(input, sink)?, Step::Eof);
            assert_eq!(pump.published(), sink.messages.len() as u64);
            return Ok(pump.published());
        }
    }
}

fn texts(framing: Framing, max: u64, input: &str) -> Vec<String> {
    let mut sink = List::new(true);
    pump(framing, max, &mut input.as_bytes(), &mut sink).unwrap();
    sink.messages.into_iter().map(|m| String::from_utf8(m).unwrap()).collect()
}

fn refused(framing: Framing, max: u64, input: &[u8]) -> (String, usize) {
    let mut sink = List::new(true);
    let error = pump(framing, max, &mut &*input, &mut sink).unwrap_err();
    assert!(matches!(error, FramingError::BadInput { .. }), "{error:?}");
    (error.to_string(), sink.messages.len())
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_le_bytes(), message].concat()
}

/// Bytes that are neither a newline nor zero, different in every message.
fn body(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| b'!' + ((n * 31 + i) % 90) as u8).collect()
}

#[test]
fn lines_lose_their_newline_and_nothing_else() {
    assert_eq!(texts(Framing::Lines, 10, "a\n\nb\r\n c\n"), ["a", "", "b\r", " c"]);
    assert_eq!(texts(Framing::Lines, 10, ""), [""; 0]);
    assert_eq!(texts(Framing::Lines, 10, "\n"), [""]);
    assert_eq!(texts(Framing::Nul, 10, "a\nb\0c\0"), ["a\nb", "c"]);
}

#[test]
fn a_place_is_asked_for_only_when_there_is_something_to_put_there() {
    let mut sink = List::new(true);
    let mut pump = Pump::new(Framing::Chunk(64 << 10), 1 << 20).unwrap();
    let mut input = Pieces::cut(&[7; 128 << 10], &[64 << 10]);
    while pump.step(&mut input, &mut sink).unwrap() != Step::Eof {}
    assert_eq!((sink.messages.len(), sink.in_place, sink.asked), (2, 2, 2));
}

#[test]
fn a_place_is_asked_for_when_the_whole_message_is_there_if_the_input_knows() {
    let size = 100 << 10;
    let input: Vec<u8> = (0..4).flat_map(|n| body(n, size)).collect();
    // The second message comes in two pieces, of which the last is too small for a read of its own; the third in two large ones.
    let cuts = [size, size - 10, 10, size / 2, size / 2, size];
    let mut input = Pieces::cut(&input, &cuts).that_knows(true);
    let (mut sink, mut asked) = (List::new(true), Vec::new());
    let mut pump = Pump::new(Framing::Chunk(size as u64), 1 << 20).unwrap();
    while pump.step(&mut input, &mut sink).unwrap() != Step::Eof {
        if asked.len() < sink.messages.len() {
            asked.push(sink.asked);
        }
    }
    assert_eq!(asked, [1, 1, 2, 3]);
    assert_eq!(sink.in_place, 3);
    assert!(sink.messages.iter().enumerate().all(|(n, message)| *message == body(n, size)));
}

#[test]
fn a_last_line_without_newline_and_a_short_last_chunk_are_messages() {
    assert_eq!(texts(Framing::Lines, 10, "a\nb"), ["a", "b"]);
    assert_eq!(texts(Framing::Chunk(3), 10, "abcde"), ["abc", "de"]);
    assert_eq!(texts(Framing::Chunk(3), 10, "abc"), ["abc"]);
    let mut sink = List::new(true);
    let size = IN_PLACE as u64;
    assert_eq!(pump(Framing::Chunk(size), size, &mut &vec![7; IN_PLACE + 1][..], &mut sink).unwrap(), 2);
    assert_eq!(sink.messages[1], [7]);
}

#[test]
fn a_message_of_exactly_the_limit_passes_in_every_framing() {
    assert_eq!(texts(Framing::Lines, 3, "abc\nabc"), ["abc", "abc"]);
    assert_eq!(texts(Framing::Chunk(3), 3, "abc"), ["abc"]);
    assert_eq!(texts(Framing::Length, 3, "\x03\0\0\0abc\0\0\0\0"), ["abc", ""]);
}

#[test]
fn a_message_over_the_limit_is_an_error_with_numbers_and_what_came_before_is_published() {
    let (message, before) = refused(Framing::Lines, 3, b"ok\nabcd\nok\n");
    assert!(message.contains("message 2") && message.contains("4 bytes") && message.contains("3 bytes"), "{message}");
    assert_eq!(before, 1);
    let (message, before) = refused(Framing::Length, 70_000, &[with_length(b"ok"), vec![0, 0, 0, 0x80]].concat());
    assert!(message.contains("2147483648 bytes") && message.contains("70000 bytes"), "{message}");
    assert_eq!(before, 1);
    let (message, _) = refused(Framing::Chunk(4096), 1024, b"");
    assert!(message.contains("4096 bytes") && message.contains("1KiB"), "{message}");
}

#[test]
fn an_endless_line_is_refused_without_being_collected() {
    let mut sink = List::new(true);
    let mut pump = Pump::new(Framing::Lines, 1 << 20).unwrap();
    let error = loop {
        match pump.step(&mut &[b'x'; 1000][..], &mut sink) {
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert!(error.to_string().contains("at least 10"), "{error}");
    assert!(pump.buffer.len() <= (1 << 20) + 1, "{}", pump.buffer.len());
}

#[test]
fn a_record_cut_short_is_an_error_that_names_both_lengths() {
    let whole = with_length(&[1; 100_000]);
    for (len, what) in [(2, "2 of the 4"), (4, "0 of 100000"), (10, "6 of 100000"), (100_003, "99999 of 100000")] {
        let (message, _) = refused(Framing::Length, 1 << 20, &whole[..len]);
        assert!(message.contains(what) && message.contains("message 1 "), "{message}");
    }
}

#[test]
fn large_messages_of_known_length_are_read_in_place() {
    let mut sink = List::new(true);
    let size = 1 << 20;
    pump(Framing::Chunk(size), size, &mut &vec![1; 5 << 20][..], &mut sink).unwrap();
    assert_eq!((sink.in_place, sink.messages.len()), (5, 5));
    let input: Vec<u8> = (0..5).flat_map(|n| with_length(&vec![n; 1 << 20])).collect();
    let mut sink = List::new(true);
    pump(Framing::Length, size, &mut &input[..], &mut sink).unwrap();
    assert_eq!((sink.in_place, sink.messages.len()), (5, 5));
    assert!(sink.messages.iter().enumerate().all(|(n, m)| m.len() == 1 << 20 && m.iter().all(|&b| b as usize == n)));
}

#[test]
fn a_message_that_the_sink_drops_is_offered_once_and_passed_over_whole() {
    for (size, framing) in [(1 << 20, Framing::Chunk(1 << 20)), (300_000, Framing::Length), (90_000, Framing::Length)] {
        let messages: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n; size]).collect();
        let input: Vec<u8> = match framing {
            Framing::Length => messages.iter().flat_map(|m| with_length(m)).collect(),
            _ => messages.concat(),
        };
        let mut sink = List { to_drop: 2, ..List::new(true) };
        let mut pump = Pump::new(framing, 1 << 20).unwrap();
        let mut pieces = Pieces::cut(&input, &[70_000, 5]);
        while pump.step(&mut pieces, &mut sink).unwrap() != Step::Eof {}
        assert_eq!((sink.to_drop, pump.published()), (0, 5), "{framing}");
        assert_eq!(sink.messages.len(), 3, "{framing}");
        assert!(sink.messages.iter().all(|m| m.len() == size && m.iter().all(|b| b == &m[0])), "{framing}");
    }
}

#[test]
fn an_input_that_fails_says_so() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    impl Input for Broken {
        fn readable(&self) -> Option<usize> {
            None
        }
    }
    let error = pump(Framing::Lines, 10, &mut Broken, &mut List::new(true)).unwrap_err();
    assert!(error.to_string().contains("unplugged"), "{error}");
}

#[test]
fn a_kept_delimiter_is_part_of_every_message_and_of_its_length() {
    for (framing, input, expected) in [
        (Framing::Nul, &b"a\0\0bc\0"[..], vec![&b"a\0"[..], b"\0", b"bc\0"]),
        (Framing::Nul, b"a\0bc", vec![b"a\0", b"bc\0"]),
        (Framing::Lines, b"a\n\nb", vec![b"a\n", b"\n", b"b\n"]),
        (Framing::Chunk(2), b"abc", vec![b"ab", b"c"]),
    ] {
        let (mut list, mut input) = (List::new(false), input);
        let mut pump = Pump::new(framing, 3).unwrap().keeping_delimiters(true);
        while pump.step(&mut input, &mut list).unwrap() != Step::Eof {}
        assert_eq!(list.messages, expected, "{framing}");
    }
    for too_long in [&b"abc\0"[..], b"abc"] {
        let mut pump = Pump::new(Framing::Nul, 3).unwrap().keeping_delimiters(true);
        let (mut list, mut input) = (List::new(false), too_long);
        let end = loop {
            match pump.step(&mut input, &mut list) {
                Ok(Step::Published(_)) => {}
                end => break end,
            }
        };
        assert!(end.unwrap_err().to_string().contains("4 bytes"), "{too_long:?}");
    }
}
