//! A file that is being written. After each step it ends behind a whole record.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcap::MAGIC;
use mcap::records::{Channel, ChunkIndex, Header, Metadata, MetadataIndex, SchemaHeader, op};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::chunk::Sealed;
use crate::format::contents::{Contents, Written};
use crate::format::encode::{append, append_schema};

/// What has written a file, for its header.
const LIBRARY: &str = concat!("shmctl-record ", env!("CARGO_PKG_VERSION"));

/// How much space a file system may allocate at once.
const PIECE: u64 = 4 << 20;

/// Why a file cannot be written to.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The system says so.
    Io(io::Error),
    /// Another program writes to it.
    InUse,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::Io(error)
    }
}

/// What has become of the end of a file.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Chunks that are no longer in the file, the last one first.
    pub(crate) dropped: Vec<Written>,
    /// The first failure.
    pub(crate) error: Option<io::Error>,
    pub(crate) has_end: bool,
}

/// A file that is open for writing, and what it contains so far.
#[derive(Debug)]
pub(crate) struct OutputFile {
    pub(crate) path: PathBuf,
    file: File,
    /// Keeps others from repairing the file while it is written. `None`: the file system has no locks.
    _lock: Option<Flock<File>>,
    pub(crate) len: u64,
    pub(crate) contents: Contents,
    begun: Instant,
}

impl OutputFile {
    /// A new file, in place of an old one if that is wanted.
    pub(crate) fn create(path: &Path, replace: bool) -> Result<Self, Refused> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if replace {
            options.create(true)
        } else {
            options.create_new(true)
        };
        let file = options.open(path)?;
        let lock = lock(&file)?;
        // Not before the lock, because another recorder may be at work.
        file.set_len(0)?;
        let mut created = OutputFile::new(path, file, lock, 0, Contents::default());
        let mut head = MAGIC.to_vec();
        append(&mut head, op::HEADER, &Header { profile: String::new(), library: LIBRARY.to_owned() });
        match created.append(&head) {
            Ok(_) => Ok(created),
            Err(error) => {
                created.discard();
                Err(error.into())
            }
        }
    }

    /// Removes a file into which no message was written, unless its name stands for something else: a device, or another file.
    pub(crate) fn discard(self) {
        if let (Ok(named), Ok(ours)) = (std::fs::symlink_metadata(&self.path), self.file.metadata())
            && named.is_file()
            && (named.dev(), named.ino()) == (ours.dev(), ours.ino())
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// A file that is there, to be cut and ended again.
    pub(crate) fn repair(path: &Path) -> Result<Self, Refused> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let lock = lock(&file)?;
        let len = file.metadata()?.len();
        Ok(OutputFile::new(path, file, lock, len, Contents::default()))
    }

    fn new(path: &Path, file: File, lock: Option<Flock<File>>, len: u64, contents: Contents) -> Self {
        OutputFile { path: path.to_owned(), file, _lock: lock, len, contents, begun: Instant::now() }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Cuts off what is behind `len`.
    pub(crate) fn cut(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// How long ago the file was begun.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Appends bytes: all of them or none. Returns where they begin.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.len;
        match self.file.write_all_at(bytes, at) {
            Ok(()) => self.len += bytes.len() as u64,
            Err(error) => {
                // A part may be there.
                let _ = self.file.set_len(at);
                return Err(error);
            }
        }
        Ok(at)
    }

    /// Appends a channel, with its schema.
    pub(crate) fn describe(&mut self, channel: &Channel, schema: Option<&(SchemaHeader, Vec<u8>)>) -> io::Result<()> {
        let mut bytes = Vec::new();
        if let Some((header, text)) = schema {
            append_schema(&mut bytes, header, text);
        }
        append(&mut bytes, op::CHANNEL, channel);
        self.append(&bytes)?;
        if let Some((header, text)) = schema {
            self.contents.schemas.insert(header.id, (header.clone(), text.clone()));
        }
        self.contents.channels.insert(channel.id, channel.clone());
        Ok(())
    }

    /// Appends a note.
    pub(crate) fn note(&mut self, note: &Metadata) -> io::Result<()> {
        let mut bytes = Vec::new();
        append(&mut bytes, op::METADATA, note);
        let offset = self.append(&bytes)?;
        let index = MetadataIndex { offset, length: bytes.len() as u64, name: note.name.clone() };
        self.contents.metadata.push(index);
        Ok(())
    }

    /// Appends a chunk and its indexes.
    pub(crate) fn chunk(&mut self, sealed: &Sealed) -> io::Result<()> {
        let bytes = &sealed.buffer.bytes;
        let at = self.append(bytes)?;
        let indexes = self.append(&sealed.indexes).inspect_err(|_| {
            let _ = self.cut(at);
        })?;
        let header = &sealed.header;
        let index = ChunkIndex {
            message_start_time: header.message_start_time,
            message_end_time: header.message_end_time,
            chunk_start_offset: at,
            chunk_length: bytes.len() as u64,
            message_index_offsets: sealed.index_offsets.iter().map(|(id, offset)| (*id, indexes + offset)).collect(),
            message_index_length: sealed.indexes.len() as u64,
            compression: header.compression.clone(),
            compressed_size: header.compressed_size,
            uncompressed_size: header.uncompressed_size,
        };
        self.contents.chunks.push(Written { index, counts: sealed.counts() });
        Ok(())
    }

    /// Appends the end, after the notes that `notes` makes. If there is no space for the end, the last chunks make way, and `notes` is
    /// told. They do not if something else has failed, or if there is still no space when more than enough was freed: then the file
    /// stays without an end, which can be appended later.
    pub(crate) fn finish(&mut self, notes: impl Fn(&Contents, &[Written]) -> Vec<Metadata>) -> Finished {
        let (len, end_len) = (self.len, self.contents.end_len());
        let mut finished = Finished { dropped: Vec::new(), error: None, has_end: false };
        loop {
            match self.append_end(&notes(&self.contents, &finished.dropped)) {
                Ok(()) => {
                    finished.has_end = true;
                    return finished;
                }
                Err(error) => {
                    let may_help = space_may_help(error.kind(), len - self.len, end_len);
                    finished.error.get_or_insert(error);
                    match may_help.then(|| self.take_back_chunk()).flatten() {
                        Some(chunk) => finished.dropped.push(chunk),
                        None => return finished,
                    }
                }
            }
        }
    }

    /// Appends the end, after notes: all of it or nothing.
    pub(crate) fn append_end(&mut self, notes: &[Metadata]) -> io::Result<()> {
        let before = self.contents.metadata.len();
        let mut bytes = Vec::new();
        for note in notes {
            let start = bytes.len();
            append(&mut bytes, op::METADATA, note);
            let (offset, length) = (self.len + start as u64, (bytes.len() - start) as u64);
            self.contents.metadata.push(MetadataIndex { offset, length, name: note.name.clone() });
        }
        bytes.extend(self.contents.end(self.len + bytes.len() as u64));
        let appended = self.append(&bytes).map(drop);
        appended.inspect_err(|_| self.contents.metadata.truncate(before))
    }

    /// Removes the last chunk and what is behind it.
    fn take_back_chunk(&mut self) -> Option<Written> {
        let len = self.contents.chunks.last()?.index.chunk_start_offset;
        self.cut(len).ok()?;
        self.contents.metadata.retain(|note| note.offset < len);
        self.contents.chunks.pop()
    }
}

/// Whether an end of about `end_len` bytes may be possible after more is taken back than the `freed` bytes so far. Some file systems
/// give space back late or in large pieces.
fn space_may_help(kind: io::ErrorKind, freed: u64, end_len: u64) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge) && freed <= 2 * end_len + PIECE
}

/// `None`: the file system has no locks.
fn lock(file: &File) -> Result<Option<Flock<File>>, Refused> {
    match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Refused::InUse),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use io::ErrorKind::{FileTooLarge, Other, PermissionDenied, QuotaExceeded, StorageFull};
    use shm_test_support::TempDir;

    use super::*;

    #[test]
    fn chunks_make_way_only_for_space_and_not_without_end() {
        for kind in [StorageFull, QuotaExceeded, FileTooLarge] {
            assert!(space_may_help(kind, 0, 1000) && space_may_help(kind, 1_000_000, 1000));
            assert!(!space_may_help(kind, 5_000_000, 1000));
            assert!(space_may_help(kind, 50_000_000, 30_000_000));
        }
        assert!(!space_may_help(Other, 0, 1000) && !space_may_help(PermissionDenied, 0, 1000));
    }

    #[test]
    fn a_file_that_cannot_be_ended_keeps_its_chunks() {
        let dir = TempDir::new();
        let path = dir.join("run.mcap");
        std::fs::write(&path, [7; 1000]).unwrap();
        let index = ChunkIndex {
            message_start_time: 0,
            message_end_time: 0,
            chunk_start_offset: 100,
            chunk_length: 900,
            message_index_offsets: [].into(),
            message_index_length: 0,
            compression: String::new(),
            compressed_size: 800,
            uncompressed_size: 800,
        };
        let contents = Contents { chunks: vec![Written { index, counts: Vec::new() }], ..Contents::default() };
        // Every write fails, and not because of the space.
        let mut file = OutputFile::new(&path, File::open(&path).unwrap(), None, 1000, contents);
        let note = Metadata { name: "n".into(), metadata: [].into() };
        let finished = file.finish(|_, _| vec![note.clone()]);
        assert!(!finished.has_end && finished.error.is_some() && finished.dropped.is_empty(), "{finished:?}");
        assert_eq!((file.contents.chunks.len(), file.contents.metadata.len(), file.len), (1, 0, 1000));
        assert_eq!(std::fs::read(&path).unwrap(), [7; 1000]);
    }
}
