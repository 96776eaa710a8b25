//! The messages of a file in the order of their times. The times of chunks may overlap: a chunk is read before the first message that is
//! not earlier than the chunk says to begin, and stays in memory until its last message is published.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::binary_heap::{BinaryHeap, PeekMut};

use mcap::records::{ChunkIndex, op};

use super::when::Range;
use crate::format::encode::{HEAD, MESSAGE_HEAD};
use crate::format::input::{Input, Records, Unreadable};
use crate::format::memory::Memory;
use crate::format::scan::{message, records};

/// A message that is larger than this counts when it is copied.
const COPIED: usize = 1 << 20;

/// Which messages are wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) range: Range,
    /// The place of each channel that is published.
    pub(crate) places: BTreeMap<u16, usize>,
}

impl Wanted {
    /// Whether a chunk may have messages that are wanted. One that has no index of its messages may have any.
    fn may_be_in(&self, chunk: &ChunkIndex) -> bool {
        let channels = &chunk.message_index_offsets;
        self.range.from.is_none_or(|from| chunk.message_end_time >= from)
            && self.range.to.is_none_or(|to| chunk.message_start_time < to)
            && (channels.is_empty() || channels.keys().any(|channel| self.places.contains_key(channel)))
    }

    fn is_one(&self, channel: u16, time: u64) -> bool {
        self.range.from.is_none_or(|from| time >= from)
            && self.range.to.is_none_or(|to| time < to)
            && self.places.contains_key(&channel)
    }
}

/// A message that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'m> {
    /// The place of its channel.
    pub(crate) place: usize,
    pub(crate) time: u64,
    pub(crate) data: &'m [u8],
}

/// A chunk with messages that are wanted and were not given yet.
#[derive(Debug)]
struct Open {
    /// Where it is in the file.
    start: u64,
    records: Records,
    /// The time of each message and its place in the records, in order.
    entries: Vec<(u64, usize)>,
    /// The next of them.
    at: usize,
}

impl Open {
    /// Messages of the same time are given in the order of the file.
    fn key(&self) -> (u64, u64, usize) {
        let (time, offset) = self.entries[self.at];
        (time, self.start, offset)
    }

    fn size(&self) -> u64 {
        (self.records.capacity() + self.entries.len() * size_of::<(u64, usize)>()) as u64
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Open {}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// The messages that are wanted of one file.
#[derive(Debug)]
pub(crate) struct Merge<'i> {
    input: &'i Input,
    wanted: Wanted,
    /// The chunks that were not read yet, the next one last.
    ahead: Vec<&'i ChunkIndex>,
    open: BinaryHeap<Reverse<Open>>,
    /// Bytes of memory that open chunks take.
    held: u64,
    /// The first message of the first open chunk was given.
    is_given: bool,
    buffer: Vec<u8>,
}

impl<'i> Merge<'i> {
    pub(crate) fn new(input: &'i Input, wanted: Wanted) -> Self {
        let mut ahead: Vec<_> = input.summary.chunk_indexes.iter().filter(|chunk| wanted.may_be_in(chunk)).collect();
        ahead.sort_by_key(|chunk| Reverse((chunk.message_start_time, chunk.chunk_start_offset)));
        Merge { input, wanted, ahead, open: BinaryHeap::new(), held: 0, is_given: false, buffer: Vec::new() }
    }

    /// The next message. `memory`: with what is in use besides.
    ///
    /// # Errors
    /// Why a chunk cannot be read. There is no next message then.
    pub(crate) fn next(&mut self, memory: Memory) -> Result<Option<Message<'_>>, Unreadable> {
        self.pass();
        while let Some(chunk) = self.ahead.last()
            && self.open.peek().is_none_or(|Reverse(first)| chunk.message_start_time < first.key().0)
        {
            self.read(chunk, memory)?;
            self.ahead.pop();
        }
        let Some(Reverse(first)) = self.open.peek() else { return Ok(None) };
        self.is_given = true;
        let (time, offset) = first.entries[first.at];
        let record = &first.records.bytes()[offset..];
        // It was looked at when the chunk was read.
        let number = |at: usize| record[at..].first_chunk().copied().unwrap_or_default();
        let len = usize::try_from(u64::from_le_bytes(number(1))).unwrap_or(usize::MAX);
        let channel = u16::from_le_bytes([record[HEAD], record[HEAD + 1]]);
        let place = self.wanted.places.get(&channel).copied().unwrap_or_default();
        if len > COPIED {
            let what = format!("message {offset} bytes into the chunk at byte {}", first.start);
            memory.with(self.held).check(&what, len as u64).map_err(Unreadable::Large)?;
        }
        Ok(Some(Message { place, time, data: &record[MESSAGE_HEAD..HEAD + len] }))
    }

    /// Passes the message that was given, and forgets its chunk if it was the last one.
    fn pass(&mut self) {
        if !std::mem::take(&mut self.is_given) {
            return;
        }
        let Some(mut first) = self.open.peek_mut() else { return };
        if first.0.at + 1 < first.0.entries.len() {
            first.0.at += 1;
            return;
        }
        let Reverse(done) = PeekMut::pop(first);
        self.held -= done.size();
        done.records.give_back(&mut self.buffer);
    }

    /// Reads a chunk, and opens it if there is anything in it that is wanted.
    fn read(&mut self, chunk: &ChunkIndex, memory: Memory) -> Result<(), Unreadable> {
        let start = chunk.chunk_start_offset;
        let read = self.input.records(start, chunk.chunk_length, memory.with(self.held), &mut self.buffer)?;
        let damaged = |why: String| Unreadable::Damaged(format!("the chunk at byte {start}: {why}"));
        let mut entries = Vec::new();
        for record in records(read.bytes()) {
            let (kind, offset, body) = record.map_err(|at| damaged(format!("there is no record at its byte {at}")))?;
            if kind == op::MESSAGE {
                let (channel, _, time) =
                    message(body).ok_or_else(|| damaged("a message in it is too short".to_owned()))?;
                if self.wanted.is_one(channel, time) {
                    entries.push((time, offset));
                }
            }
        }
        if entries.is_empty() {
            read.give_back(&mut self.buffer);
            return Ok(());
        }
        if !entries.is_sorted() {
            entries.sort_unstable();
        }
        let open = Open { start, records: read, entries, at: 0 };
        self.held += open.size();
        self.open.push(Reverse(open));
        Ok(())
    }
}
