//! Filling envelopes.

use bytes::Bytes;

use super::{HEADER, LENGTH, PART, PART_TABLE, Part, TIME, TIMES, VERSION};

/// What is known of a message beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) lineage: u64,
    pub(crate) seq: u64,
    /// When it was published, in nanoseconds since 1970, if the channel has publish times.
    pub(crate) time: Option<u64>,
}

/// An envelope that is being filled.
#[derive(Debug)]
pub(crate) struct Builder {
    /// Most bytes of an envelope.
    limit: usize,
    first: Option<Head>,
    bytes: Vec<u8>,
    lengths: Vec<u32>,
    times: Vec<u64>,
}

impl Builder {
    /// For envelopes of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Builder { limit, first: None, bytes: Vec::new(), lengths: Vec::new(), times: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether a message of `len` bytes may be appended: it follows the last one, and fits.
    pub(crate) fn accepts(&self, head: &Head, len: usize) -> bool {
        let follows = |first: Head| {
            let next = first.seq + self.lengths.len() as u64;
            head.lineage == first.lineage && head.seq == next && head.time.is_some() == first.time.is_some()
        };
        self.first.is_none_or(follows) && len <= self.left(head.time.is_some())
    }

    /// The largest message that fits now.
    pub(crate) fn left(&self, has_time: bool) -> usize {
        let each = if has_time { LENGTH + TIME } else { LENGTH };
        let used = self.bytes.len().max(HEADER) + (self.lengths.len() + 1) * each;
        self.limit.saturating_sub(used)
    }

    /// Appends the message that `write` appends to the bytes. The caller has asked whether it is accepted.
    pub(crate) fn append(&mut self, head: Head, write: impl FnOnce(&mut Vec<u8>)) {
        if self.first.is_none() {
            // The tables are made at the end: room for them and for most envelopes' messages from the start.
            self.bytes.reserve(self.limit.min(64 << 10));
            self.bytes.resize(HEADER, 0);
            self.first = Some(head);
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.lengths.push((self.bytes.len() - before) as u32);
        self.times.extend(head.time);
    }

    /// Takes the last message out again.
    pub(crate) fn undo(&mut self) {
        let Some(len) = self.lengths.pop() else { return };
        self.bytes.truncate(self.bytes.len() - len as usize);
        self.times.truncate(self.lengths.len());
        if self.lengths.is_empty() {
            self.first = None;
            self.bytes.clear();
        }
    }

    /// The envelope, if it has messages; the next one begins.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        let first = self.first.take()?;
        let mut bytes = std::mem::take(&mut self.bytes);
        let flags = if first.time.is_some() { TIMES } else { 0 };
        header(&mut bytes, flags, self.lengths.len() as u32, &first);
        bytes.extend(self.times.drain(..).flat_map(u64::to_le_bytes));
        bytes.extend(self.lengths.drain(..).flat_map(u32::to_le_bytes));
        Some(bytes.into())
    }
}

/// An envelope with a part of a message, whose `len` bytes `fill` fills in.
pub(crate) fn part(head: &Head, part: Part, len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
    let mut bytes = Vec::with_capacity(HEADER + len + TIME + LENGTH + PART_TABLE);
    bytes.resize(HEADER + len, 0);
    header(&mut bytes, PART | if head.time.is_some() { TIMES } else { 0 }, 1, head);
    fill(&mut bytes[HEADER..]);
    bytes.extend(head.time.into_iter().flat_map(u64::to_le_bytes));
    bytes.extend((len as u32).to_le_bytes());
    bytes.extend(part.offset.to_le_bytes());
    bytes.extend(part.total.to_le_bytes());
    bytes.into()
}

/// The most bytes of a message that a part has in an envelope of at most `limit` bytes.
pub(crate) fn most_of_a_part(limit: usize) -> usize {
    limit.saturating_sub(HEADER + TIME + LENGTH + PART_TABLE).max(1)
}

fn header(bytes: &mut [u8], flags: u8, count: u32, first: &Head) {
    bytes[..4].copy_from_slice(&[VERSION, flags, 0, 0]);
    bytes[4..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..16].copy_from_slice(&first.lineage.to_le_bytes());
    bytes[16..24].copy_from_slice(&first.seq.to_le_bytes());
}
