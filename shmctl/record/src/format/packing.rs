//! The records of a chunk, compressed and not.

use std::borrow::Cow;
use std::io::{Read, Write};

use clap::ValueEnum;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use mcap::records::ChunkHeader;

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Not at all: as fast as the disk.
    None,
    /// Fast, and less small.
    Lz4,
    /// Small; more so with a higher --level.
    Zstd,
}

impl Compression {
    /// The name in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Compresses one chunk after the other.
pub(crate) enum Packer {
    Lz4,
    Zstd(Box<zstd::bulk::Compressor<'static>>),
}

impl Packer {
    /// `None`: there is nothing to do.
    pub(crate) fn new(compression: Compression, level: i32) -> std::io::Result<Option<Self>> {
        Ok(match compression {
            Compression::None => None,
            Compression::Lz4 => Some(Packer::Lz4),
            Compression::Zstd => Some(Packer::Zstd(Box::new(zstd::bulk::Compressor::new(level)?))),
        })
    }

    /// The compressed records, after `room` bytes for something else.
    pub(crate) fn pack(&mut self, records: &[u8], room: usize) -> std::io::Result<Vec<u8>> {
        match self {
            Packer::Lz4 => {
                // The chunk has a checksum of its own.
                let info = FrameInfo::new()
                    .block_size(BlockSize::Max1MB)
                    .block_mode(BlockMode::Linked)
                    .content_size(Some(records.len() as u64));
                let mut packed = Vec::with_capacity(room + records.len() / 2);
                packed.resize(room, 0);
                let mut encoder = FrameEncoder::with_frame_info(info, packed);
                encoder.write_all(records)?;
                encoder.finish().map_err(std::io::Error::other)
            }
            Packer::Zstd(compressor) => {
                let mut packed = vec![0; room + zstd::zstd_safe::compress_bound(records.len())];
                let len = compressor.compress_to_buffer(records, &mut packed[room..])?;
                packed.truncate(room + len);
                Ok(packed)
            }
        }
    }
}

/// The records of a chunk, if they are what was written.
///
/// # Errors
/// What is wrong with the chunk.
pub(crate) fn unpacked<'d>(header: &ChunkHeader, data: &'d [u8]) -> Result<Cow<'d, [u8]>, String> {
    let len = usize::try_from(header.uncompressed_size).map_err(|_| "it is larger than the memory".to_owned())?;
    let records = match header.compression.as_str() {
        "" => Cow::Borrowed(data),
        "lz4" => {
            let mut records = room_for(len)?;
            // One byte more than promised shows that the size is wrong.
            let read =
                FrameDecoder::new(data).take(header.uncompressed_size.saturating_add(1)).read_to_end(&mut records);
            read.map_err(|e| format!("it cannot be decompressed: {e}"))?;
            Cow::Owned(records)
        }
        "zstd" => {
            let mut records = room_for(len)?;
            let mut decompressor = zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?;
            decompressor
                .decompress_to_buffer(data, &mut records)
                .map_err(|e| format!("it cannot be decompressed: {e}"))?;
            Cow::Owned(records)
        }
        other => return Err(format!("it is compressed with {other:?}; only lz4 and zstd are known")),
    };
    if records.len() != len {
        return Err(format!("it has {} bytes and not {len}", records.len()));
    }
    // 0: the writer has not calculated it.
    if header.uncompressed_crc != 0 {
        let crc = crc32fast::hash(&records);
        if crc != header.uncompressed_crc {
            return Err(format!("its checksum is {crc:#010x} and not {:#010x}", header.uncompressed_crc));
        }
    }
    Ok(records)
}

/// The size comes from the file, and may be nonsense.
fn room_for(len: usize) -> Result<Vec<u8>, String> {
    let mut records = Vec::new();
    records.try_reserve_exact(len).map_err(|_| format!("there is no memory for its {len} bytes"))?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(compression: Compression, records: &[u8], packed: &[u8]) -> ChunkHeader {
        ChunkHeader {
            message_start_time: 0,
            message_end_time: 0,
            uncompressed_size: records.len() as u64,
            uncompressed_crc: crc32fast::hash(records),
            compression: compression.name().to_owned(),
            compressed_size: packed.len() as u64,
        }
    }

    fn packed(compression: Compression, records: &[u8]) -> Vec<u8> {
        match Packer::new(compression, 1).unwrap() {
            None => records.to_vec(),
            Some(mut packer) => packer.pack(records, 7).unwrap().split_off(7),
        }
    }

    #[test]
    fn what_was_packed_comes_out_again() {
        let long: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for records in [&b""[..], b"a", &long] {
                let packed = packed(compression, records);
                let unpacked = unpacked(&header(compression, records, &packed), &packed).unwrap();
                assert!(*unpacked == *records, "{compression:?}, {} bytes", records.len());
            }
            assert_eq!(packed(compression, &long).len() < long.len() / 2, compression != Compression::None);
        }
    }

    #[test]
    fn a_chunk_that_is_not_what_was_written_is_refused() {
        let records: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let packed = packed(compression, &records);
            let right = header(compression, &records, &packed);
            for place in (0..packed.len()).step_by(packed.len() / 50) {
                let mut wrong = packed.clone();
                wrong[place] ^= 0x10;
                // A byte that means nothing may differ, as long as the records are right.
                assert!(
                    unpacked(&right, &wrong).is_ok_and(|found| *found == *records) || unpacked(&right, &wrong).is_err()
                );
            }
            assert!(unpacked(&right, &packed[..packed.len() / 2]).is_err(), "{compression:?}");
            for size in [0, right.uncompressed_size - 1, right.uncompressed_size + 1, u64::MAX] {
                let wrong = ChunkHeader { uncompressed_size: size, ..right.clone() };
                assert!(unpacked(&wrong, &packed).is_err(), "{compression:?} {size}");
            }
        }
        let foreign = ChunkHeader { compression: "xz".into(), ..header(Compression::None, b"", b"") };
        assert!(unpacked(&foreign, b"").unwrap_err().contains("xz"));
    }
}
