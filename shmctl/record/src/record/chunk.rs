//! Messages that are written together.

use mcap::records::ChunkHeader;
use shm_proto::Message;

use super::content::Description;
use super::depot::{Buffer, Depot};
use crate::format::contents::Count;
use crate::format::encode::{
    MESSAGE_HEAD, append_index_entry, append_message_index, chunk_head, chunk_head_len, message_head,
};
use crate::format::packing::{Compression, Packer};

/// How the messages of a channel are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The numbers go on from one segment of the channel to the next of the same lineage.
    pub(crate) lineage: u64,
    /// The segment.
    pub(crate) instance: u64,
    /// The times are those of publishing.
    pub(crate) published: bool,
}

/// What the writing thread has to know before it writes a chunk. Channels are known by their places, in the order of
/// [`Channel`](Event::Channel)s.
#[derive(Debug)]
pub(crate) enum Event {
    /// There is another channel.
    Channel { topic: String, description: Description },
    /// A channel's messages are numbered in this way from the next one on.
    Numbers { place: usize, numbers: Numbers },
    /// The recorder was told something about a channel.
    Notice { topic: String, time: String, text: String },
}

/// The messages of one channel in a chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    index: Vec<u8>,
    pub(crate) messages: u64,
    /// Bytes of the messages.
    pub(crate) bytes: u64,
    /// The numbers of the first message and of the one after the last.
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// Missing messages: the first number and the count of each gap.
    pub(crate) lost: Vec<(u64, u64)>,
    /// Numbers that nobody knows a message for, because a broken segment was replaced.
    pub(crate) skipped: Vec<(u64, u64)>,
}

/// When a message was published or received, in nanoseconds since 1970, and its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) seq: u64,
    pub(crate) time: u64,
}

/// A chunk that is being filled.
#[derive(Debug)]
pub(crate) struct Chunk {
    buffer: Buffer,
    /// How long it may become. The buffer may have been a larger chunk's, and have more room.
    limit: usize,
    times: Option<(u64, u64)>,
    parts: Vec<Part>,
    pub(crate) events: Vec<Event>,
}

/// Room before the records for the head of an uncompressed chunk.
const ROOM: usize = chunk_head_len("");

impl Chunk {
    /// A chunk with room for a message of `len` bytes, and for `usual` bytes of messages.
    pub(crate) fn new(depot: &Depot, usual: usize, len: usize) -> Self {
        let limit = ROOM + usual.max(MESSAGE_HEAD + len);
        let mut buffer = depot.take(limit);
        buffer.bytes.resize(ROOM, 0);
        Chunk { buffer, limit, times: None, parts: Vec::new(), events: Vec::new() }
    }

    /// Whether a message of `len` bytes fits in.
    #[inline]
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.limit - self.buffer.bytes.len() >= MESSAGE_HEAD + len
    }

    /// Whether there is a message in it.
    pub(crate) fn has_messages(&self) -> bool {
        self.times.is_some()
    }

    /// Copies a message in, which does not count before [`keep`](Self::keep). Returns its place.
    #[inline]
    pub(crate) fn copy(&mut self, place: usize, stamp: Stamp, message: &Message<'_>) -> usize {
        let bytes = &mut self.buffer.bytes;
        let at = bytes.len();
        // MCAP has 32 bits for the number. The rest is in a note.
        let head = message_head(channel_id(place), stamp.seq as u32, stamp.time, stamp.time, message.len());
        bytes.extend_from_slice(&head);
        message.append_to(bytes);
        at
    }

    /// The message that was copied to `at` is whole.
    #[inline]
    pub(crate) fn keep(&mut self, place: usize, stamp: Stamp, at: usize) {
        let Stamp { seq, time } = stamp;
        let (start, end) = self.times.unwrap_or((time, time));
        self.times = Some((start.min(time), end.max(time)));
        let len = self.buffer.bytes.len() - at - MESSAGE_HEAD;
        let part = self.part(place);
        if part.messages == 0 {
            part.first = seq;
        }
        part.next = seq + 1;
        part.messages += 1;
        part.bytes += len as u64;
        append_index_entry(&mut part.index, time, (at - ROOM) as u64);
    }

    /// The message that was copied to `at` was overwritten meanwhile.
    pub(crate) fn take_back(&mut self, at: usize) {
        self.buffer.bytes.truncate(at);
    }

    /// `lost` messages are missing directly before message `seq`, and `skipped` numbers were left out before those.
    #[cold]
    pub(crate) fn note_gap(&mut self, place: usize, seq: u64, lost: u64, skipped: u64) {
        let part = self.part(place);
        if lost > 0 {
            part.lost.push((seq.saturating_sub(lost), lost));
        }
        if skipped > 0 {
            part.skipped.push((seq.saturating_sub(lost + skipped), skipped));
        }
    }

    /// The chunk is not needed.
    pub(crate) fn give_back(self, depot: &Depot) {
        depot.give_back(self.buffer);
    }

    #[inline]
    fn part(&mut self, place: usize) -> &mut Part {
        if place >= self.parts.len() {
            self.parts.resize_with(place + 1, Part::default);
        }
        &mut self.parts[place]
    }

    /// The chunk as it is written. With a packer, the memory goes back to the depot at once.
    pub(crate) fn seal(self, packer: Option<&mut Packer>, compression: Compression, depot: &Depot) -> Sealed {
        let Chunk { mut buffer, times, parts, events, .. } = self;
        let records = &buffer.bytes[ROOM..];
        let (uncompressed_size, uncompressed_crc) = (records.len() as u64, crc32fast::hash(records));
        let room = chunk_head_len(compression.name());
        if let Some(packer) = packer {
            let packed = packer.pack(records, room).expect("compressing in memory does not fail");
            depot.give_back(buffer);
            buffer = Buffer::of(packed);
        }
        let (message_start_time, message_end_time) = times.unwrap_or_default();
        let header = ChunkHeader {
            message_start_time,
            message_end_time,
            uncompressed_size,
            uncompressed_crc,
            compression: compression.name().to_owned(),
            compressed_size: (buffer.bytes.len() - room) as u64,
        };
        buffer.bytes[..room].copy_from_slice(&chunk_head(&header));
        let (mut indexes, mut index_offsets) = (Vec::new(), Vec::new());
        for (place, part) in parts.iter().enumerate().filter(|(_, part)| part.messages > 0) {
            index_offsets.push((channel_id(place), indexes.len() as u64));
            append_message_index(&mut indexes, channel_id(place), &part.index);
        }
        Sealed { events, parts, header, buffer, indexes, index_offsets }
    }
}

/// A chunk that is ready to be written.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) events: Vec<Event>,
    pub(crate) parts: Vec<Part>,
    pub(crate) header: ChunkHeader,
    /// The record of the chunk.
    pub(crate) buffer: Buffer,
    /// The records of its indexes, and where each begins in them.
    pub(crate) indexes: Vec<u8>,
    pub(crate) index_offsets: Vec<(u16, u64)>,
}

impl Sealed {
    /// Channels with messages in it.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let filled = self.parts.iter().enumerate().filter(|(_, part)| part.messages > 0);
        filled
            .map(|(place, part)| Count { channel: channel_id(place), messages: part.messages, first: part.first })
            .collect()
    }
}

/// The number of a channel in the files.
pub(crate) fn channel_id(place: usize) -> u16 {
    (place + 1) as u16
}
