//! What a file contains, and its end, which says so.

use std::collections::BTreeMap;

use binrw::BinWrite;
use mcap::MAGIC;
use mcap::records::{
    AttachmentIndex, Channel, ChunkIndex, DataEnd, MetadataIndex, SchemaHeader, Statistics, SummaryOffset, op,
};

use super::encode::{HEAD, append, append_schema};

/// Bytes of the last record and what follows it.
pub(crate) const FOOTER_LEN: usize = HEAD + 8 + 8 + 4 + MAGIC.len();

/// The messages of one channel in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) channel: u16,
    pub(crate) messages: u64,
    /// The number of the first of them.
    pub(crate) first: u64,
}

/// A chunk in a file.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) index: ChunkIndex,
    pub(crate) counts: Vec<Count>,
}

/// Everything in a file that its end mentions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) channels: BTreeMap<u16, Channel>,
    pub(crate) schemas: BTreeMap<u16, (SchemaHeader, Vec<u8>)>,
    pub(crate) chunks: Vec<Written>,
    pub(crate) metadata: Vec<MetadataIndex>,
    pub(crate) attachments: Vec<AttachmentIndex>,
    /// Messages of each channel that are in no chunk.
    pub(crate) loose: BTreeMap<u16, u64>,
    /// The times of the first and the last of them.
    pub(crate) loose_times: Option<(u64, u64)>,
    /// Bytes of memory that what was read of a file takes at most.
    pub(crate) weight: u64,
}

impl Contents {
    /// Messages of each channel.
    pub(crate) fn counts(&self) -> BTreeMap<u16, u64> {
        let mut counts = self.loose.clone();
        for count in self.chunks.iter().flat_map(|chunk| &chunk.counts) {
            *counts.entry(count.channel).or_default() += count.messages;
        }
        counts
    }

    /// All messages.
    pub(crate) fn messages(&self) -> u64 {
        self.counts().values().sum()
    }

    /// About as many bytes as [`end`](Self::end) takes, and no fewer.
    pub(crate) fn end_len(&self) -> u64 {
        let channels = self.channels.len() as u64;
        let names: usize = self.channels.values().map(|c| 200 + c.topic.len() + c.message_encoding.len()).sum();
        let facts: usize = self.channels.values().flat_map(|c| &c.metadata).map(|(k, v)| 8 + k.len() + v.len()).sum();
        let schemas: usize = self.schemas.values().map(|(h, t)| 100 + h.name.len() + h.encoding.len() + t.len()).sum();
        let metadata: usize = self.metadata.iter().map(|m| 40 + m.name.len()).sum();
        1000 + (names + facts + schemas + metadata) as u64 + self.chunks.len() as u64 * (100 + 10 * channels)
    }

    /// The end of a file whose other records end at `start`.
    pub(crate) fn end(&self, start: u64) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, op::DATA_END, &DataEnd { data_section_crc: 0 });
        let summary = out.len();
        let mut groups = Vec::new();
        let mut group = |out: &Vec<u8>, kind, from: usize| {
            if out.len() > from {
                let (group_start, group_length) = (start + from as u64, (out.len() - from) as u64);
                groups.push(SummaryOffset { group_opcode: kind, group_start, group_length });
            }
        };
        for (header, text) in self.schemas.values() {
            append_schema(&mut out, header, text);
        }
        group(&out, op::SCHEMA, summary);
        let mut all = |out: &mut Vec<u8>, kind, each: &mut dyn FnMut(&mut Vec<u8>)| {
            let from = out.len();
            each(out);
            group(out, kind, from);
        };
        all(&mut out, op::CHANNEL, &mut |out| each(out, op::CHANNEL, self.channels.values()));
        all(&mut out, op::STATISTICS, &mut |out| append(out, op::STATISTICS, &self.statistics()));
        all(&mut out, op::CHUNK_INDEX, &mut |out| each(out, op::CHUNK_INDEX, self.chunks.iter().map(|c| &c.index)));
        all(&mut out, op::ATTACHMENT_INDEX, &mut |out| each(out, op::ATTACHMENT_INDEX, &self.attachments));
        all(&mut out, op::METADATA_INDEX, &mut |out| each(out, op::METADATA_INDEX, &self.metadata));
        let offsets = out.len();
        each(&mut out, op::SUMMARY_OFFSET, &groups);
        out.push(op::FOOTER);
        for number in [20, start + summary as u64, start + offsets as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[summary..]);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(MAGIC);
        out
    }

    fn statistics(&self) -> Statistics {
        let counts = self.counts();
        let filled = self.chunks.iter().filter(|chunk| !chunk.counts.is_empty());
        let times = filled.map(|chunk| (chunk.index.message_start_time, chunk.index.message_end_time));
        let times = times.chain(self.loose_times).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let (message_start_time, message_end_time) = times.unwrap_or((0, 0));
        Statistics {
            message_count: counts.values().sum(),
            schema_count: self.schemas.len() as u16,
            channel_count: self.channels.len() as u32,
            attachment_count: self.attachments.len() as u32,
            metadata_count: self.metadata.len() as u32,
            chunk_count: self.chunks.len() as u32,
            message_start_time,
            message_end_time,
            channel_message_counts: counts,
        }
    }
}

fn each<'r, T: BinWrite<Args<'static> = ()> + 'r>(
    out: &mut Vec<u8>,
    kind: u8,
    records: impl IntoIterator<Item = &'r T>,
) {
    for record in records {
        append(out, kind, record);
    }
}
