//! How messages of a channel travel in one message of a stream. All numbers are little-endian.
//!
//! | bytes | contents |
//! |---|---|
//! | 0 | version: 1 |
//! | 1 | flags: 1 there are publish times, 2 this is a part of a message |
//! | 2 to 3 | 0 |
//! | 4 to 7 | number of messages, at least 1 |
//! | 8 to 15 | instance: the lineage of the channel, a random number. Messages of one instance are numbered without a gap |
//! | 16 to 23 | number of the first message; the others follow it without a gap |
//! | 24 on | the messages, one after the other |
//! | with times | for each message 8 bytes: when it was published, in nanoseconds since 1970 |
//! | always | for each message 4 bytes: its length |
//! | a part | 8 bytes: where in the message the part begins; 8 bytes: the length of the whole message |
//!
//! The tables stand behind the messages, so that messages are copied once, straight from the ring to where they are sent from.
//! Everything in here may come from anybody: it is checked once, by [`Envelope::open`], and nothing is allocated before.

mod build;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

pub(crate) use self::build::{Builder, Head, most_of_a_part, part};

const VERSION: u8 = 1;
/// Bytes before the messages.
pub(crate) const HEADER: usize = 24;
const TIMES: u8 = 1;
const PART: u8 = 2;
const TIME: usize = 8;
const LENGTH: usize = 4;
const PART_TABLE: usize = 16;

/// A place in a channel: this byte of this message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
}

impl Place {
    /// The beginning of a message.
    pub(crate) fn message(seq: u64) -> Self {
        Place { seq, offset: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seq)?;
        if self.offset > 0 { write!(f, "+{}", self.offset) } else { Ok(()) }
    }
}

/// A part of a message that is too large for one envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    /// Bytes of the whole message.
    pub(crate) total: u64,
}

/// Why bytes are no envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadEnvelope(String);

impl fmt::Display for BadEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An envelope that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    bytes: Bytes,
    lineage: u64,
    first: u64,
    count: usize,
    has_times: bool,
    part: Option<Part>,
    /// Where the messages end and the tables begin.
    tables: usize,
}

/// One message of an envelope, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) seq: u64,
    /// When it was published, in nanoseconds since 1970.
    pub(crate) time: Option<u64>,
    pub(crate) bytes: Bytes,
}

impl Envelope {
    /// Checks bytes that came from anywhere.
    pub(crate) fn open(bytes: Bytes) -> Result<Self, BadEnvelope> {
        let bad = |reason: String| Err(BadEnvelope(reason));
        if bytes.len() < HEADER {
            return bad(format!("it has {} bytes, and an envelope begins with {HEADER}", bytes.len()));
        }
        let (version, flags) = (bytes[0], bytes[1]);
        if version != VERSION {
            return bad(format!("its version is {version}, and this program knows version {VERSION}"));
        }
        if flags & !(TIMES | PART) != 0 || bytes[2..4] != [0, 0] {
            return bad(format!("it has unknown flags: {:02x?}", &bytes[1..4]));
        }
        let count = u32_at(&bytes, 4) as usize;
        let (lineage, first) = (u64_at(&bytes, 8), u64_at(&bytes, 16));
        let (has_times, is_part) = (flags & TIMES != 0, flags & PART != 0);
        if count == 0 || (is_part && count != 1) || first.checked_add(count as u64).is_none() {
            return bad(format!("it counts {count} messages from number {first} on"));
        }
        let each = if has_times { LENGTH + TIME } else { LENGTH };
        let needed = count.checked_mul(each).and_then(|all| all.checked_add(if is_part { PART_TABLE } else { 0 }));
        let behind = bytes.len() - HEADER;
        let Some(tables) = needed.and_then(|needed| behind.checked_sub(needed)).map(|payload| HEADER + payload) else {
            return bad(format!("it has {behind} bytes behind its header, too few for the tables of {count} messages"));
        };
        let part = is_part.then(|| {
            let at = bytes.len() - PART_TABLE;
            Part { offset: u64_at(&bytes, at), total: u64_at(&bytes, at + 8) }
        });
        let envelope = Envelope { bytes, lineage, first, count, has_times, part, tables };
        let payload = (tables - HEADER) as u64;
        let sum: u64 = (0..count).map(|n| envelope.length(n) as u64).sum();
        if sum != payload {
            return bad(format!("its messages have {payload} bytes, and their lengths add up to {sum}"));
        }
        if let Some(Part { offset, total }) = part
            && (payload == 0 || offset.checked_add(payload).is_none_or(|end| end > total))
        {
            return bad(format!("a part has {payload} bytes from {offset} on, of a message of {total}"));
        }
        Ok(envelope)
    }

    /// The channel's lineage.
    pub(crate) fn lineage(&self) -> u64 {
        self.lineage
    }

    /// Set for a part of a message.
    pub(crate) fn part(&self) -> Option<Part> {
        self.part
    }

    /// The bytes as they are sent.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where the contents begin.
    pub(crate) fn start(&self) -> Place {
        Place { seq: self.first, offset: self.part.map_or(0, |part| part.offset) }
    }

    /// Where the next envelope begins.
    pub(crate) fn end(&self) -> Place {
        match self.part {
            Some(Part { offset, total }) => {
                let end = offset + (self.tables - HEADER) as u64;
                if end < total { Place { seq: self.first, offset: end } } else { Place::message(self.first + 1) }
            }
            None => Place::message(self.first + self.count as u64),
        }
    }

    /// Its messages in order, or its part.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item> + '_ {
        let mut at = HEADER;
        (0..self.count).map(move |n| {
            let end = at + self.length(n);
            let bytes = self.bytes.slice(at..end);
            at = end;
            Item { seq: self.first + n as u64, time: self.time(n), bytes }
        })
    }

    /// What is left of it from a place on: the whole, a shorter envelope, or nothing.
    pub(crate) fn from(self, place: Place) -> Option<Envelope> {
        if place <= self.start() {
            return Some(self);
        }
        if place >= self.end() {
            return None;
        }
        let shorter = if let Some(Part { offset, total }) = self.part {
            let item = self.items().next()?;
            // The place may come from a stranger's envelope, and lie behind the end of the message.
            let skipped = usize::try_from(place.offset - offset).ok()?;
            let left = item.bytes.get(skipped..).filter(|left| !left.is_empty())?;
            let head = Head { lineage: self.lineage, seq: self.first, time: item.time };
            part(&head, Part { offset: place.offset, total }, left.len(), |out| out.copy_from_slice(left))
        } else {
            let mut builder = Builder::new(self.bytes.len());
            for item in self.items().filter(|item| item.seq >= place.seq) {
                let head = Head { lineage: self.lineage, seq: item.seq, time: item.time };
                builder.append(head, |out| out.extend_from_slice(&item.bytes));
            }
            builder.finish()?
        };
        Envelope::open(shorter).ok()
    }

    fn length(&self, n: usize) -> usize {
        let times = if self.has_times { self.count * TIME } else { 0 };
        u32_at(&self.bytes, self.tables + times + n * LENGTH) as usize
    }

    fn time(&self, n: usize) -> Option<u64> {
        self.has_times.then(|| u64_at(&self.bytes, self.tables + n * TIME))
    }
}

/// The caller has checked that the bytes are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}

/// The caller has checked that the bytes are there.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]))
}
