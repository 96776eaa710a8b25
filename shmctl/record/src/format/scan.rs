//! A file from its beginning, record by record, as far as it is whole.

use std::fs::File;
use std::io::{self, Cursor};
use std::os::unix::fs::FileExt;

use binrw::BinRead;
use mcap::records::{
    AttachmentHeader, AttachmentIndex, Channel, ChunkHeader, ChunkIndex, MetadataIndex, Record, SchemaHeader, op,
};
use mcap::{MAGIC, parse_record};

use super::contents::{Contents, Count, Written};
use super::encode::{HEAD, append_index_entry, chunk_head_len};
use super::memory::{Memory, PARSED, of_index, of_records};
use super::packing::unpacked;

/// The longest head of a chunk.
const CHUNK_HEAD: usize = chunk_head_len("zstd");
/// What the end of a file takes in memory for each thing that it mentions, beside names and texts.
const ENTRY_WEIGHT: u64 = 256;
/// How much is read at once in a search.
const WINDOW: usize = 1 << 20;

/// A record of a file.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it begins.
    pub(crate) at: u64,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
}

impl Found {
    pub(crate) fn kind(&self) -> u8 {
        self.bytes[0]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[HEAD..]
    }
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Next {
    Record(Found),
    /// The file ends here, between two records.
    End,
    /// The file ends in the middle of a record, which begins here.
    Torn,
}

/// Reads records one after the other.
#[derive(Debug)]
pub(crate) struct Scan<'f> {
    file: &'f File,
    pub(crate) at: u64,
    pub(crate) len: u64,
    /// What a record may need.
    pub(crate) memory: Memory,
    /// Why the first record was left out that needs more.
    pub(crate) too_large: Option<String>,
}

impl<'f> Scan<'f> {
    /// `None`: it is no MCAP file.
    pub(crate) fn new(file: &'f File, memory: Memory) -> io::Result<Option<Self>> {
        let len = file.metadata()?.len();
        let mut magic = [0; MAGIC.len()];
        if len < MAGIC.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut magic, 0)?;
        Ok((magic == *MAGIC).then_some(Scan { file, at: MAGIC.len() as u64, len, memory, too_large: None }))
    }

    /// The next record. One that needs too much memory is as one that is torn, and is noted.
    pub(crate) fn next(&mut self) -> io::Result<Next> {
        let left = self.len - self.at;
        if left == 0 {
            return Ok(Next::End);
        }
        let mut head = [0; HEAD];
        if left < HEAD as u64 {
            return Ok(Next::Torn);
        }
        self.file.read_exact_at(&mut head, self.at)?;
        let len = u64::from_le_bytes(head[1..].try_into().expect("8 bytes"));
        // No record has the kind 0; space that was never written looks like that.
        if head[0] == 0 || len > left - HEAD as u64 {
            return Ok(Next::Torn);
        }
        let at = self.at;
        // An index is compared with the messages of its chunk.
        let copies = if head[0] == op::MESSAGE_INDEX { 6 } else { 1 };
        if self.is_too_large((HEAD as u64 + len).saturating_mul(copies)) {
            return Ok(Next::Torn);
        }
        let mut bytes = Vec::new();
        // The length is no greater than the file, but that may be greater than the memory.
        bytes.try_reserve_exact(HEAD + len as usize).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        bytes.resize(HEAD + len as usize, 0);
        self.file.read_exact_at(&mut bytes, at)?;
        if head[0] == op::CHUNK
            && let Ok((header, _)) = chunk(&bytes[HEAD..])
        {
            // A copy gets an index, which is there as a record and as what was read of it, too.
            let copies = of_index(header.uncompressed_size).saturating_mul(2);
            if self.is_too_large((bytes.len() as u64).saturating_add(of_records(&header)).saturating_add(copies)) {
                return Ok(Next::Torn);
            }
        }
        self.at += bytes.len() as u64;
        Ok(Next::Record(Found { at, bytes }))
    }

    fn is_too_large(&mut self, needs: u64) -> bool {
        let checked = self.memory.check(&format!("the record at byte {}", self.at), needs);
        let is_too_large = checked.is_err();
        self.too_large = self.too_large.take().or(checked.err());
        is_too_large
    }
}

impl Scan<'_> {
    /// Goes to the first whole chunk that begins at `from` or later. False: there is none, and the scan stays where it is.
    pub(crate) fn seek_chunk(&mut self, from: u64) -> io::Result<bool> {
        let (before, mut start) = (self.at, from);
        let mut window = vec![0; WINDOW];
        while start + (CHUNK_HEAD as u64) <= self.len {
            let size = WINDOW.min(usize::try_from(self.len - start).unwrap_or(WINDOW));
            self.file.read_exact_at(&mut window[..size], start)?;
            for place in (0..=size - CHUNK_HEAD).filter(|place| window[*place] == op::CHUNK) {
                self.at = start + place as u64;
                if is_chunk_head(&window[place..place + CHUNK_HEAD])
                    && let Next::Record(found) = self.next()?
                    && Contents::default().add(&found, 0).is_ok()
                {
                    self.at = found.at;
                    return Ok(true);
                }
            }
            start += (size - CHUNK_HEAD + 1) as u64;
        }
        self.at = before;
        Ok(false)
    }
}

/// Whether a chunk begins like this: lengths and compression agree, and there is a checksum.
pub(crate) fn is_chunk_head(bytes: &[u8]) -> bool {
    let number = |at: usize| bytes.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
    let name = HEAD + 8 + 8 + 8 + 4 + 4;
    let agree = |compression: &str| {
        let (head, end) = (chunk_head_len(compression), name + compression.len());
        let fits = |packed: u64| number(1) == packed.checked_add((head - HEAD) as u64);
        bytes.get(name - 4..name) == Some(&(compression.len() as u32).to_le_bytes()[..])
            && bytes.get(name..end) == Some(compression.as_bytes())
            && number(end).is_some_and(fits)
    };
    bytes.first() == Some(&op::CHUNK)
        && bytes.get(name - 8..name - 4).is_some_and(|crc| crc != [0; 4])
        && ["", "lz4", "zstd"].into_iter().any(agree)
}

/// The records in a chunk or a summary: each one's kind and body, or the place where something else is.
pub(crate) fn records(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, usize, &[u8]), usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let Some((head, rest)) = rest.split_at_checked(HEAD) else {
            at = bytes.len();
            return Some(Err(start));
        };
        let len = u64::from_le_bytes(head[1..].try_into().expect("8 bytes"));
        match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            Some(body) => {
                at += HEAD + body.len();
                Some(Ok((head[0], start, body)))
            }
            None => {
                at = bytes.len();
                Some(Err(start))
            }
        }
    })
}

/// The entries of the index of each channel in a chunk.
pub(crate) type Indexes = Vec<(u16, Vec<u8>)>;

impl Contents {
    /// Notes a record that begins at `at`. For a chunk, returns what its index has to contain.
    ///
    /// # Errors
    /// Why the record is not what its kind says.
    pub(crate) fn add(&mut self, found: &Found, at: u64) -> Result<Option<Indexes>, String> {
        let (body, length) = (found.body(), found.bytes.len() as u64);
        self.weight += match found.kind() {
            op::ATTACHMENT | op::METADATA | op::CHUNK => ENTRY_WEIGHT,
            // A place in the index of its chunk.
            op::MESSAGE_INDEX => ENTRY_WEIGHT / 8,
            _ => 0,
        };
        match found.kind() {
            op::CHUNK => self.add_chunk(found, at).map(Some),
            op::MESSAGE => {
                let (channel, _, time) = message(body).ok_or("a message is too short")?;
                *self.loose.entry(channel).or_default() += 1;
                let (first, last) = self.loose_times.unwrap_or((time, time));
                self.loose_times = Some((first.min(time), last.max(time)));
                Ok(None)
            }
            op::ATTACHMENT => {
                let mut cursor = Cursor::new(body);
                let header = AttachmentHeader::read_le(&mut cursor).map_err(|e| e.to_string())?;
                let data_size = u64::read_le(&mut cursor).map_err(|e| e.to_string())?;
                let AttachmentHeader { log_time, create_time, name, media_type } = header;
                self.weight += (name.len() + media_type.len()) as u64;
                let index = AttachmentIndex { offset: at, length, log_time, create_time, data_size, name, media_type };
                self.attachments.push(index);
                Ok(None)
            }
            op::METADATA => match parse_record(op::METADATA, body) {
                Ok(Record::Metadata(metadata)) => {
                    self.weight += metadata.name.len() as u64;
                    self.metadata.push(MetadataIndex { offset: at, length, name: metadata.name });
                    Ok(None)
                }
                other => Err(unlike(other)),
            },
            op::MESSAGE_INDEX => match (parse_record(op::MESSAGE_INDEX, body), self.chunks.last_mut()) {
                (Ok(Record::MessageIndex(index)), Some(chunk)) => {
                    chunk.index.message_index_offsets.insert(index.channel_id, at);
                    chunk.index.message_index_length += length;
                    Ok(None)
                }
                (other, _) => Err(unlike(other)),
            },
            kind @ (op::SCHEMA | op::CHANNEL) => self.describe(kind, body).map(|()| None),
            _ => Ok(None),
        }
    }

    fn add_chunk(&mut self, found: &Found, at: u64) -> Result<Indexes, String> {
        let (header, data) = chunk(found.body())?;
        let records_of_chunk = unpacked(&header, data)?;
        let (mut counts, mut indexes): (Vec<Count>, Indexes) = (Vec::new(), Vec::new());
        for record in records(&records_of_chunk) {
            let (kind, offset, body) = record.map_err(|at| format!("there is no record at its byte {at}"))?;
            match kind {
                op::MESSAGE => {
                    let (channel, first, time) = message(body).ok_or("a message in it is too short")?;
                    let place = counts.iter().position(|count| count.channel == channel).unwrap_or_else(|| {
                        counts.push(Count { channel, messages: 0, first });
                        indexes.push((channel, Vec::new()));
                        counts.len() - 1
                    });
                    counts[place].messages += 1;
                    append_index_entry(&mut indexes[place].1, time, offset as u64);
                }
                op::SCHEMA | op::CHANNEL => self.describe(kind, body)?,
                _ => {}
            }
        }
        let index = ChunkIndex {
            message_start_time: header.message_start_time,
            message_end_time: header.message_end_time,
            chunk_start_offset: at,
            chunk_length: found.bytes.len() as u64,
            message_index_offsets: [].into(),
            message_index_length: 0,
            compression: header.compression,
            compressed_size: header.compressed_size,
            uncompressed_size: header.uncompressed_size,
        };
        self.weight += (counts.len() * size_of::<Count>()) as u64;
        self.chunks.push(Written { index, counts });
        Ok(indexes)
    }

    fn describe(&mut self, kind: u8, body: &[u8]) -> Result<(), String> {
        // Writers may describe their channels in each chunk.
        let before = match parse_record(kind, body) {
            Ok(Record::Schema { header, data }) => {
                let (id, schema) = (header.id, (header, data.into_owned()));
                self.weight += weight_of_schema(&schema);
                self.schemas.insert(id, schema).as_ref().map(weight_of_schema)
            }
            Ok(Record::Channel(channel)) => {
                self.weight += weight_of_channel(&channel);
                self.channels.insert(channel.id, channel).as_ref().map(weight_of_channel)
            }
            other => return Err(unlike(other)),
        };
        self.weight -= before.unwrap_or_default();
        Ok(())
    }
}

fn weight_of_schema((header, text): &(SchemaHeader, Vec<u8>)) -> u64 {
    ENTRY_WEIGHT + (header.name.len() + header.encoding.len() + text.len()) as u64
}

fn weight_of_channel(channel: &Channel) -> u64 {
    let facts: usize = channel.metadata.iter().map(|(key, value)| 8 + key.len() + value.len()).sum();
    ENTRY_WEIGHT + (channel.topic.len() + channel.message_encoding.len()) as u64 + facts as u64 * PARSED
}

/// A chunk's head and what it contains.
pub(crate) fn chunk(body: &[u8]) -> Result<(ChunkHeader, &[u8]), String> {
    let mut cursor = Cursor::new(body);
    let header = ChunkHeader::read_le(&mut cursor).map_err(|e| e.to_string())?;
    let data = &body[cursor.position() as usize..];
    let len = usize::try_from(header.compressed_size).ok();
    let data = len.and_then(|len| data.get(..len)).ok_or("it is shorter than it says")?;
    Ok((header, data))
}

/// A message's channel, number and time.
pub(crate) fn message(body: &[u8]) -> Option<(u16, u64, u64)> {
    let channel = u16::from_le_bytes(body.get(..2)?.try_into().ok()?);
    let sequence = u32::from_le_bytes(body.get(2..6)?.try_into().ok()?);
    let time = u64::from_le_bytes(body.get(6..14)?.try_into().ok()?);
    (body.len() >= 22).then_some((channel, sequence.into(), time))
}

fn unlike(record: Result<Record<'_>, mcap::McapError>) -> String {
    match record {
        Err(error) => error.to_string(),
        Ok(record) => format!("a record of the kind {:#04x} is out of place", record.opcode()),
    }
}
