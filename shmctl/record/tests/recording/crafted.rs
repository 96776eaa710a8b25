//! Files as no recorder writes them, record by record.

use std::io::Cursor;
use std::path::Path;

use binrw::{BinWrite, Endian};
use mcap::MAGIC;
use mcap::records::{Channel, ChunkHeader, ChunkIndex, DataEnd, Header, op};

/// A kind of records that readers pass over.
pub(crate) const PRIVATE: u8 = 0x80;

/// A record of any kind.
pub(crate) fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u64).to_le_bytes(), body].concat()
}

pub(crate) fn record<T: BinWrite<Args<'static> = ()>>(kind: u8, body: &T) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    body.write_options(&mut bytes, Endian::Little, ()).unwrap();
    raw(kind, &bytes.into_inner())
}

/// A message of the channel `main`.
pub(crate) fn message(time: u64, data: &[u8]) -> Vec<u8> {
    let numbers = [&1u16.to_le_bytes()[..], &0u32.to_le_bytes(), &time.to_le_bytes(), &time.to_le_bytes()].concat();
    raw(op::MESSAGE, &[&numbers, data].concat())
}

/// A schema with a text of this length.
pub(crate) fn schema(id: u16, len: usize) -> Vec<u8> {
    let name = [&4u32.to_le_bytes()[..], b"name"].concat();
    let text = [&(len as u32).to_le_bytes()[..], &vec![b' '; len]].concat();
    raw(op::SCHEMA, &[&id.to_le_bytes()[..], &name, &name, &text].concat())
}

/// The channel `main`.
pub(crate) fn channel() -> Vec<u8> {
    let channel =
        Channel { id: 1, schema_id: 0, topic: "main".to_owned(), message_encoding: String::new(), metadata: [].into() };
    record(op::CHANNEL, &channel)
}

/// A file that is being written.
pub(crate) struct Crafted {
    pub(crate) bytes: Vec<u8>,
    pub(crate) indexes: Vec<ChunkIndex>,
}

impl Crafted {
    pub(crate) fn new() -> Self {
        let header = Header { profile: String::new(), library: String::new() };
        Crafted { bytes: [MAGIC, &record(op::HEADER, &header)].concat(), indexes: Vec::new() }
    }

    /// Appends a chunk, compressed with zstd, and with these times in its index, whatever the times of its messages are.
    pub(crate) fn chunk(&mut self, records: &[u8], (first, last): (u64, u64)) {
        let data = zstd::bulk::compress(records, 1).unwrap();
        let header = ChunkHeader {
            message_start_time: first,
            message_end_time: last,
            uncompressed_size: records.len() as u64,
            uncompressed_crc: crc32fast::hash(records),
            compression: "zstd".to_owned(),
            compressed_size: data.len() as u64,
        };
        let head = record(op::CHUNK, &header);
        let chunk = raw(op::CHUNK, &[&head[9..], &data].concat());
        self.indexes.push(ChunkIndex {
            message_start_time: first,
            message_end_time: last,
            chunk_start_offset: self.bytes.len() as u64,
            chunk_length: chunk.len() as u64,
            message_index_offsets: [].into(),
            message_index_length: 0,
            compression: header.compression,
            compressed_size: header.compressed_size,
            uncompressed_size: header.uncompressed_size,
        });
        self.bytes.extend(chunk);
    }

    /// Writes the file with its end, before which these records stand.
    pub(crate) fn finish(self, path: &Path, summary: &[u8]) {
        let mut bytes = self.bytes;
        bytes.extend(record(op::DATA_END, &DataEnd { data_section_crc: 0 }));
        let start = bytes.len() as u64;
        bytes.extend(channel());
        bytes.extend(summary);
        for index in &self.indexes {
            bytes.extend(record(op::CHUNK_INDEX, index));
        }
        // No offsets, and no checksum.
        bytes.extend(raw(op::FOOTER, &[&start.to_le_bytes()[..], &[0; 12]].concat()));
        bytes.extend(MAGIC);
        std::fs::write(path, bytes).unwrap();
    }
}
