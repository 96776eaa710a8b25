//! A file that is being written. After each step it ends behind a whole record.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
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
        created.append(&head)?;
        Ok(created)
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

    /// Appends the end, after the notes that `notes` makes. If there is no space for the end, the last chunks make way: they are
    /// returned with the reason, and `notes` is told.
    pub(crate) fn finish(
        &mut self,
        notes: impl Fn(&Contents, &[Written]) -> Vec<Metadata>,
    ) -> Result<Option<(Vec<Written>, io::Error)>, io::Error> {
        let mut dropped: Option<(Vec<Written>, io::Error)> = None;
        loop {
            let before = self.contents.metadata.len();
            let so_far = dropped.as_ref().map_or(&[][..], |(chunks, _)| chunks);
            let Err(error) = self.append_end(&notes(&self.contents, so_far)) else { return Ok(dropped) };
            self.contents.metadata.truncate(before);
            let Some(chunk) = self.take_back_chunk() else { return Err(error) };
            dropped.get_or_insert((Vec::new(), error)).0.push(chunk);
        }
    }

    fn append_end(&mut self, notes: &[Metadata]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for note in notes {
            let start = bytes.len();
            append(&mut bytes, op::METADATA, note);
            let (offset, length) = (self.len + start as u64, (bytes.len() - start) as u64);
            self.contents.metadata.push(MetadataIndex { offset, length, name: note.name.clone() });
        }
        bytes.extend(self.contents.end(self.len + bytes.len() as u64));
        self.append(&bytes).map(drop)
    }

    /// Removes the last chunk and what is behind it.
    fn take_back_chunk(&mut self) -> Option<Written> {
        let chunk = self.contents.chunks.pop()?;
        let len = chunk.index.chunk_start_offset;
        self.cut(len).ok()?;
        self.contents.metadata.retain(|note| note.offset < len);
        Some(chunk)
    }
}

/// `None`: the file system has no locks.
fn lock(file: &File) -> Result<Option<Flock<File>>, Refused> {
    match Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Refused::InUse),
        Err(_) => Ok(None),
    }
}
