//! Records as bytes. The crate `mcap` has their layout.

use std::io::Cursor;

use binrw::{BinWrite, Endian};
use mcap::records::{ChunkHeader, SchemaHeader, op};

/// Bytes before the body of a record: what it is, and the length of the body.
pub(crate) const HEAD: usize = 9;

/// Bytes of a message's record before the message.
pub(crate) const MESSAGE_HEAD: usize = HEAD + 22;

/// Appends a record.
pub(crate) fn append<T: BinWrite<Args<'static> = ()>>(out: &mut Vec<u8>, kind: u8, body: &T) {
    let start = out.len();
    out.push(kind);
    out.extend_from_slice(&[0; 8]);
    append_body(out, body);
    let len = (out.len() - start - HEAD) as u64;
    out[start + 1..start + HEAD].copy_from_slice(&len.to_le_bytes());
}

fn append_body<T: BinWrite<Args<'static> = ()>>(out: &mut Vec<u8>, body: &T) {
    let end = out.len() as u64;
    let mut cursor = Cursor::new(out);
    cursor.set_position(end);
    body.write_options(&mut cursor, Endian::Little, ()).expect("memory takes every record");
}

/// Appends a schema, whose text is no part of the crate's record.
pub(crate) fn append_schema(out: &mut Vec<u8>, header: &SchemaHeader, text: &[u8]) {
    let mut body = Vec::new();
    append_body(&mut body, header);
    body.extend_from_slice(&(text.len() as u32).to_le_bytes());
    body.extend_from_slice(text);
    append_bytes(out, op::SCHEMA, &body);
}

/// Appends a record whose body is there already.
pub(crate) fn append_bytes(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(body);
}

/// What comes before the records of a chunk. Its length depends only on the name of the compression.
pub(crate) fn chunk_head(header: &ChunkHeader) -> Vec<u8> {
    let mut head = Vec::with_capacity(chunk_head_len(&header.compression));
    append(&mut head, op::CHUNK, header);
    let len = (head.len() - HEAD) as u64 + header.compressed_size;
    head[1..HEAD].copy_from_slice(&len.to_le_bytes());
    head
}

/// The length of [`chunk_head`].
pub(crate) const fn chunk_head_len(compression: &str) -> usize {
    HEAD + 8 + 8 + 8 + 4 + 4 + compression.len() + 8
}

/// The beginning of a message's record.
#[inline]
pub(crate) fn message_head(
    channel: u16,
    sequence: u32,
    log_time: u64,
    publish_time: u64,
    len: usize,
) -> [u8; MESSAGE_HEAD] {
    let mut head = [0; MESSAGE_HEAD];
    head[0] = op::MESSAGE;
    head[1..9].copy_from_slice(&((MESSAGE_HEAD - HEAD + len) as u64).to_le_bytes());
    head[9..11].copy_from_slice(&channel.to_le_bytes());
    head[11..15].copy_from_slice(&sequence.to_le_bytes());
    head[15..23].copy_from_slice(&log_time.to_le_bytes());
    head[23..31].copy_from_slice(&publish_time.to_le_bytes());
    head
}

/// Appends the index of one channel's messages in a chunk. `entries` are times and offsets, 8 bytes each.
pub(crate) fn append_message_index(out: &mut Vec<u8>, channel: u16, entries: &[u8]) {
    out.push(op::MESSAGE_INDEX);
    out.extend_from_slice(&(2 + 4 + entries.len() as u64).to_le_bytes());
    out.extend_from_slice(&channel.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(entries);
}

/// Bytes of an entry of such an index.
pub(crate) const ENTRY: usize = 8 + 8;

/// Appends an entry of such an index.
#[inline]
pub(crate) fn append_index_entry(entries: &mut Vec<u8>, log_time: u64, offset: u64) {
    let mut entry = [0; ENTRY];
    entry[..8].copy_from_slice(&log_time.to_le_bytes());
    entry[8..].copy_from_slice(&offset.to_le_bytes());
    entries.extend_from_slice(&entry);
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use mcap::parse_record;
    use mcap::records::{Metadata, Record};

    use super::*;

    /// The only record in these bytes.
    fn parsed(bytes: &[u8]) -> Record<'_> {
        let len = u64::from_le_bytes(bytes[1..HEAD].try_into().unwrap());
        assert_eq!(len as usize, bytes.len() - HEAD);
        parse_record(bytes[0], &bytes[HEAD..]).unwrap()
    }

    #[test]
    fn records_are_what_the_crate_reads() {
        let mut out = Vec::new();
        let metadata = Metadata { name: "n".into(), metadata: [("key".into(), "value".into())].into() };
        append(&mut out, op::METADATA, &metadata);
        assert!(matches!(parsed(&out), Record::Metadata(found) if found == metadata));

        out.clear();
        let schema = SchemaHeader { id: 7, name: "s".into(), encoding: "jsonschema".into() };
        append_schema(&mut out, &schema, b"{}");
        let is_same = |record| matches!(record, Record::Schema { header, data } if header == schema && *data == *b"{}");
        assert!(is_same(parsed(&out)));

        out = message_head(3, 0xffff_fffe, 5, 6, 4).to_vec();
        out.extend_from_slice(b"text");
        let Record::Message { header, data } = parsed(&out) else { panic!("{out:?}") };
        let numbers = (header.channel_id, header.sequence, header.log_time, header.publish_time);
        assert_eq!((numbers, data), ((3, 0xffff_fffe, 5, 6), Cow::Borrowed(&b"text"[..])));

        out.clear();
        let mut entries = Vec::new();
        append_index_entry(&mut entries, 8, 9);
        append_message_index(&mut out, 3, &entries);
        let Record::MessageIndex(index) = parsed(&out) else { panic!("{out:?}") };
        assert_eq!((index.channel_id, index.records[0].log_time, index.records[0].offset), (3, 8, 9));
    }

    #[test]
    fn a_chunks_head_has_the_length_that_was_promised() {
        for compression in ["", "lz4", "zstd"] {
            let header = ChunkHeader {
                message_start_time: 1,
                message_end_time: 2,
                uncompressed_size: 3,
                uncompressed_crc: 4,
                compression: compression.to_owned(),
                compressed_size: 5,
            };
            let mut bytes = chunk_head(&header);
            assert_eq!(bytes.len(), chunk_head_len(compression));
            bytes.extend_from_slice(&[0; 5]);
            assert!(matches!(parsed(&bytes), Record::Chunk { header: found, .. } if found == header));
        }
    }
}
