//! How much memory files may make the program use. What a file says about itself may be damaged, or may have been written to do harm:
//! a length of many gigabytes, or a chunk that becomes thousands of times as large when it is decompressed.

use mcap::records::ChunkHeader;
use shm_proto::Bytes;
use shmctl::companion::human::bytes_in_words;

use super::encode::{ENTRY, MESSAGE_HEAD};

/// What parsed text takes at most that may be in small parts, as the metadata of a channel is: so many times the bytes in the file.
pub(crate) const PARSED: u64 = 12;
/// The same for the index of a chunk.
pub(crate) const PARSED_INDEX: u64 = 4;

/// Enough for what `shmctl record` writes, except for messages of more than 1 GiB: a chunk has up to 1 GiB of messages unless it has
/// only one, and may be there as it is in the file, decompressed, and with an index.
pub(crate) const USUAL: Bytes = Bytes(4 * Bytes::GIB);

/// The least that makes sense: the program itself takes about as much.
const LEAST: Bytes = Bytes(Bytes::MIB);

/// `--memory SIZE`.
pub(crate) fn parse(text: &str) -> Result<Bytes, String> {
    let size = text.parse::<Bytes>().map_err(|e| e.to_string())?;
    if size < LEAST { Err(format!("at least {LEAST}")) } else { Ok(size) }
}

/// What is allowed, and what is in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    limit: u64,
    used: u64,
}

impl Memory {
    pub(crate) fn new(limit: Bytes) -> Self {
        Memory { limit: limit.get(), used: 0 }
    }

    /// The same with more in use.
    #[must_use]
    pub(crate) fn with(self, more: u64) -> Self {
        Memory { used: self.used.saturating_add(more), ..self }
    }

    /// # Errors
    /// If the limit does not allow `more` bytes for `what`: a sentence that says so, with the numbers.
    pub(crate) fn check(self, what: &str, more: u64) -> Result<(), String> {
        let Memory { used, .. } = self.with(more);
        if used <= self.limit {
            return Ok(());
        }
        Err(format!(
            "{what} needs {} of memory, which makes {} with what else is needed, and --memory allows {}: give more if the file is \
             from somebody you trust",
            bytes_in_words(more),
            bytes_in_words(used),
            bytes_in_words(self.limit)
        ))
    }
}

/// What the records of a chunk take beside the chunk as it is in the file: decompressed, and with an index.
pub(crate) fn of_records(header: &ChunkHeader) -> u64 {
    let size = header.uncompressed_size;
    let unpacked = if header.compression.is_empty() { 0 } else { size };
    unpacked.saturating_add(of_index(size))
}

/// The most bytes that an index of all messages takes, in a chunk with this number of bytes of records.
pub(crate) fn of_index(records: u64) -> u64 {
    records / MESSAGE_HEAD as u64 * ENTRY as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_together_may_take_what_is_allowed() {
        let memory = Memory::new(Bytes(4096)).with(1000);
        assert_eq!(memory.check("it", 3096), Ok(()));
        let refused = memory.check("the chunk at byte 7", 3097).unwrap_err();
        for part in ["the chunk at byte 7 needs 3KiB", "--memory allows 4KiB"] {
            assert!(refused.contains(part), "{refused}");
        }
        assert!(memory.check("it", u64::MAX).is_err());
    }

    #[test]
    fn the_largest_chunk_of_a_recorder_and_the_next_one_are_allowed() {
        let chunk = Bytes::GIB + 100;
        let open = chunk + of_index(chunk);
        assert_eq!(Memory::new(USUAL).with(open).check("the next chunk", open), Ok(()));
        // One that could not be made smaller is there twice while it is decompressed.
        assert_eq!(Memory::new(USUAL).check("a chunk", chunk + open), Ok(()));
        // A copy of it has a new index.
        assert_eq!(Memory::new(USUAL).check("a chunk", chunk + open + 2 * of_index(chunk)), Ok(()));
    }

    #[test]
    fn a_size_has_a_least_value() {
        assert_eq!(parse("64MiB"), Ok(Bytes(64 << 20)));
        for text in ["1KiB", "much"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
