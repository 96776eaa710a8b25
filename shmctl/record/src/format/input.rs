//! A finished file, read by what its end says.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcap::records::{Record, op};
use mcap::{MAGIC, Schema, Summary, parse_record};

use super::contents::FOOTER_LEN;
use super::encode::{HEAD, chunk_head_len};
use super::memory::{Memory, PARSED, PARSED_INDEX, of_records};
use super::packing::unpacked;
use super::scan::{chunk, records};

/// A buffer with more memory than this is not kept for the next chunk.
const KEPT: usize = 16 << 20;

/// Why a file cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The system says so.
    Io(io::Error),
    /// It is no MCAP file.
    Foreign(&'static str),
    /// It has no end, or an end that says nothing.
    Unfinished(String),
    /// It has no index of its chunks, although it has messages; this is their number.
    Unindexed(u64),
    /// A part of it is not what was written.
    Damaged(String),
    /// A part of it needs too much memory.
    Large(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        // Somebody cuts the file short.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Unreadable::Damaged("it is shorter than its parts say".to_owned());
        }
        Unreadable::Io(error)
    }
}

/// A file and its summary.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    file: File,
    len: u64,
    /// Bytes of memory that the summary takes at most.
    pub(crate) held: u64,
    pub(crate) summary: Summary,
}

/// The records of a chunk.
#[derive(Debug)]
pub(crate) struct Records {
    /// They are a part of this.
    buffer: Vec<u8>,
    range: Range<usize>,
}

impl Records {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }

    /// Bytes of memory that they take.
    pub(crate) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Lets the memory be used for another chunk, unless it is a lot.
    pub(crate) fn give_back(self, buffer: &mut Vec<u8>) {
        if (buffer.capacity() + 1..=KEPT).contains(&self.capacity()) {
            *buffer = self.buffer;
        }
    }
}

impl Input {
    /// `memory`: what the summary may need.
    pub(crate) fn open(path: &Path, memory: Memory) -> Result<Self, Unreadable> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(Unreadable::Foreign("it is no regular file"));
        }
        let (summary, held) = read_summary(&file, facts.len(), memory)?;
        if let Some(stats) = &summary.stats
            && stats.message_count > 0
            && summary.chunk_indexes.is_empty()
        {
            return Err(Unreadable::Unindexed(stats.message_count));
        }
        Ok(Input { path: path.to_owned(), file, len: facts.len(), held, summary })
    }

    /// The times of the first and of the last message.
    pub(crate) fn times(&self) -> Option<(u64, u64)> {
        let filled = self.summary.chunk_indexes.iter().filter(|chunk| chunk.message_end_time > 0);
        let times = filled.map(|chunk| (chunk.message_start_time, chunk.message_end_time));
        times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    /// The messages of a channel, if the file says so.
    pub(crate) fn count(&self, channel: u16) -> Option<u64> {
        let counts = self.summary.stats.as_ref().map(|stats| &stats.channel_message_counts)?;
        // An empty map says nothing.
        (!counts.is_empty()).then(|| counts.get(&channel).copied().unwrap_or(0))
    }

    /// The records of the chunk that begins at `offset`. `memory`: what they, and an index of them, may need. `buffer` is used to read
    /// the chunk, and is gone afterwards if its records are not compressed.
    pub(crate) fn records(
        &self,
        offset: u64,
        length: u64,
        memory: Memory,
        buffer: &mut Vec<u8>,
    ) -> Result<Records, Unreadable> {
        let damaged = |why: String| Unreadable::Damaged(format!("the chunk at byte {offset}: {why}"));
        if offset.checked_add(length).is_none_or(|end| end > self.len) || length < HEAD as u64 {
            return Err(damaged("it is not in the file".to_owned()));
        }
        let needs = |more: u64| {
            let needed = memory.check(&format!("the chunk at byte {offset}"), length.saturating_add(more));
            needed.map_err(Unreadable::Large)
        };
        needs(0)?;
        buffer.clear();
        buffer.try_reserve(length as usize).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        buffer.resize(length as usize, 0);
        self.file.read_exact_at(buffer, offset)?;
        if buffer[0] != op::CHUNK {
            return Err(damaged("there is something else".to_owned()));
        }
        let (header, data) = chunk(&buffer[HEAD..]).map_err(damaged)?;
        needs(of_records(&header))?;
        let start = chunk_head_len(&header.compression);
        let end = start + data.len();
        let records = match unpacked(&header, data).map_err(damaged)? {
            Cow::Borrowed(_) => None,
            Cow::Owned(records) => Some(records),
        };
        let Some(records) = records else { return Ok(Records { buffer: std::mem::take(buffer), range: start..end }) };
        if buffer.capacity() > KEPT {
            *buffer = Vec::new();
        }
        Ok(Records { range: 0..records.len(), buffer: records })
    }
}

/// What the end of a file says, and how much memory that takes at most.
fn read_summary(file: &File, len: u64, memory: Memory) -> Result<(Summary, u64), Unreadable> {
    let mut magic = [0; MAGIC.len()];
    if len >= MAGIC.len() as u64 {
        file.read_exact_at(&mut magic, 0)?;
    }
    if magic != *MAGIC {
        return Err(Unreadable::Foreign("it does not begin as MCAP files do"));
    }
    let unfinished = |why: &str| Unreadable::Unfinished(why.to_owned());
    let footer_at = len.checked_sub(FOOTER_LEN as u64).filter(|at| *at >= MAGIC.len() as u64);
    let footer_at = footer_at.ok_or_else(|| unfinished("it has no end"))?;
    let mut footer = [0; FOOTER_LEN];
    file.read_exact_at(&mut footer, footer_at)?;
    if footer[0] != op::FOOTER || !footer.ends_with(MAGIC) {
        return Err(unfinished("it has no end"));
    }
    let number = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().expect("8 bytes"));
    let start = number(HEAD);
    if start == 0 {
        return Err(unfinished("it has no summary"));
    }
    let summary_len = footer_at.checked_sub(start).and_then(|len| usize::try_from(len).ok());
    let summary_len = summary_len.ok_or_else(|| Unreadable::Damaged("its summary is not in the file".to_owned()))?;
    let needs =
        |more: u64| memory.check("its summary", (summary_len as u64).saturating_add(more)).map_err(Unreadable::Large);
    needs(0)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(summary_len + HEAD + 16).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(summary_len, 0);
    file.read_exact_at(&mut bytes, start)?;
    bytes.extend_from_slice(&footer[..HEAD + 16]);
    let saved = u32::from_le_bytes(footer[HEAD + 16..HEAD + 20].try_into().expect("4 bytes"));
    if saved != 0 && saved != crc32fast::hash(&bytes) {
        return Err(Unreadable::Damaged("the checksum of its summary is wrong".to_owned()));
    }
    let bytes = &bytes[..summary_len];
    let parsed = records(bytes).map(|record| record.map_or(0, |(kind, _, body)| weight(kind, body.len() as u64))).sum();
    needs(parsed)?;
    Ok((parse(bytes).map_err(Unreadable::Damaged)?, parsed))
}

/// Bytes of memory that a record of a summary takes at most when it is parsed.
fn weight(kind: u8, len: u64) -> u64 {
    let times = match kind {
        op::SCHEMA => 2,
        op::CHUNK_INDEX => PARSED_INDEX,
        op::CHANNEL | op::STATISTICS => PARSED,
        // The others are passed over.
        _ => 0,
    };
    (HEAD as u64 + len) * times
}

fn parse(bytes: &[u8]) -> Result<Summary, String> {
    let (mut summary, mut channels) = (Summary::default(), Vec::new());
    for record in records(bytes) {
        let (kind, _, body) = record.map_err(|at| format!("there is no record at byte {at} of its summary"))?;
        // The others are not needed here.
        if !matches!(kind, op::SCHEMA | op::CHANNEL | op::STATISTICS | op::CHUNK_INDEX) {
            continue;
        }
        match parse_record(kind, body).map_err(|e| format!("its summary: {e}"))? {
            Record::Schema { header, data } => {
                let mcap::records::SchemaHeader { id, name, encoding } = header;
                let schema = Schema { id, name, encoding, data: Cow::Owned(data.into_owned()) };
                summary.schemas.insert(id, Arc::new(schema));
            }
            // Their schemas may stand behind them.
            Record::Channel(channel) => channels.push(channel),
            Record::ChunkIndex(index) => summary.chunk_indexes.push(index),
            Record::Statistics(stats) => summary.stats = Some(stats),
            _ => {}
        }
    }
    for mcap::records::Channel { id, schema_id, topic, message_encoding, metadata } in channels {
        let schema = summary.schemas.get(&schema_id).cloned();
        summary.channels.insert(id, mcap::Channel { id, topic, schema, message_encoding, metadata }.into());
    }
    Ok(summary)
}
