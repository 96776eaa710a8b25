//! Envelopes on disk, in the order in which they came, until the server has acknowledged them.
//!
//! A spool is a directory of one relay. Its files are numbered. Each contains records: the length of an envelope in 4 bytes,
//! little-endian, and the envelope. A file is removed when all of its envelopes are in the stream, so a relay that is killed may find
//! envelopes that are in the stream already, and the sender passes over them. A record that a killed relay has not written to its
//! end is cut off: the channel has its messages yet.
//!
//! Nothing is forced to the disk: a spool survives the death of the relay, and not that of the machine, with which the channel in
//! memory ends, too.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use log::{info, warn};
use nix::fcntl::{Flock, FlockArg};

use crate::envelope::{Envelope, Place};

/// A file that has reached this number of bytes is followed by another one.
const FILE: u64 = 16 << 20;
/// Bytes before each envelope.
const LENGTH: u64 = 4;
const SUFFIX: &str = "spool";

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    len: u64,
    /// Records that are not released.
    held: u64,
    /// Where the next record to load begins.
    read: u64,
}

/// The envelopes on disk.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    _lock: Flock<File>,
    limit: u64,
    segments: VecDeque<Segment>,
    /// Records that were not loaded.
    unloaded: u64,
    tail: Option<(u64, Place)>,
}

impl Spool {
    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens or makes the directory, and takes over what an earlier relay has left in it.
    pub(super) fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| io::Error::new(io::Error::from(e).kind(), format!("another relay uses it ({e})")))?;
        let mut spool =
            Spool { dir: dir.to_owned(), _lock: lock, limit, segments: VecDeque::new(), unloaded: 0, tail: None };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            if let Some(number) = number.filter(|_| path.extension().is_some_and(|e| e == SUFFIX)) {
                found.push((number, path));
            }
        }
        found.sort_unstable();
        for (number, path) in found {
            spool.take_over(number, path)?;
        }
        spool.clean();
        if spool.unloaded > 0 {
            info!("the spool {} has {} envelopes, {} bytes", dir.display(), spool.unloaded, spool.bytes());
        }
        Ok(spool)
    }

    fn take_over(&mut self, number: u64, path: PathBuf) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(&path)?;
        let mut segment = Segment { number, path, len: file.metadata()?.len(), file, held: 0, read: 0 };
        let mut end = 0;
        while let Some(envelope) = segment.record(end)? {
            end += LENGTH + envelope.bytes().len() as u64;
            segment.held += 1;
            self.tail = Some((envelope.lineage(), envelope.end()));
        }
        if end < segment.len {
            warn!("{}: cutting off {} bytes behind the last whole envelope", segment.path.display(), segment.len - end);
            segment.file.set_len(end)?;
            segment.len = end;
        }
        self.unloaded += segment.held;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Appends an envelope. Returns false if the spool has no space for it, unless it has to go in `whatever` the limit is.
    pub(super) fn append(&mut self, envelope: &Envelope, whatever: bool) -> io::Result<bool> {
        let bytes = envelope.bytes();
        let needed = LENGTH + bytes.len() as u64;
        if !whatever && self.bytes() + needed > self.limit {
            return Ok(false);
        }
        if self.segments.back().is_none_or(|last| last.len >= FILE) {
            self.begin_file()?;
        }
        let Some(last) = self.segments.back_mut() else { return Ok(false) };
        // A record that fails half-way is overwritten by the next one.
        last.file.write_all_at(&(bytes.len() as u32).to_le_bytes(), last.len)?;
        last.file.write_all_at(bytes, last.len + LENGTH)?;
        last.len += needed;
        last.held += 1;
        self.unloaded += 1;
        self.tail = Some((envelope.lineage(), envelope.end()));
        Ok(true)
    }

    /// The envelope that was appended last stays in memory: it counts as loaded. Does nothing and returns false if envelopes before
    /// it are not loaded.
    pub(super) fn pass_newest(&mut self) -> bool {
        if self.unloaded != 1 {
            return false;
        }
        for segment in &mut self.segments {
            segment.read = segment.len;
        }
        self.unloaded = 0;
        true
    }

    pub(super) fn has_unloaded(&self) -> bool {
        self.unloaded > 0
    }

    /// The next envelope that was not loaded yet.
    pub(super) fn load(&mut self) -> io::Result<Envelope> {
        let dir = self.dir.display().to_string();
        let lost = || io::Error::other(format!("the spool {dir} has lost a record that was written to it"));
        let segment = self.segments.iter_mut().find(|segment| segment.read < segment.len).ok_or_else(lost)?;
        let envelope = segment.record(segment.read)?.ok_or_else(lost)?;
        segment.read += LENGTH + envelope.bytes().len() as u64;
        self.unloaded -= 1;
        Ok(envelope)
    }

    /// The oldest envelope, which was loaded, is in the stream.
    pub(super) fn release(&mut self) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.held > 0) {
            segment.held -= 1;
        }
        self.clean();
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// The instance of the newest envelope, and where it ends.
    pub(super) fn tail(&self) -> Option<(u64, Place)> {
        self.tail.filter(|_| self.bytes() > 0)
    }

    fn begin_file(&mut self) -> io::Result<()> {
        let number = self.segments.back().map_or(1, |last| last.number + 1);
        let path = self.dir.join(format!("{number:020}.{SUFFIX}"));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        self.segments.push_back(Segment { number, path, file, len: 0, held: 0, read: 0 });
        Ok(())
    }

    /// Removes the files whose envelopes are all in the stream.
    fn clean(&mut self) {
        while let Some(first) = self.segments.front()
            && first.held == 0
        {
            if let Err(e) = fs::remove_file(&first.path) {
                warn!("cannot remove {}: {e}", first.path.display());
            }
            self.segments.pop_front();
        }
    }
}

impl Segment {
    /// The record at a place, if there is a whole one.
    fn record(&self, at: u64) -> io::Result<Option<Envelope>> {
        let Some(most) = self.len.checked_sub(at + LENGTH) else { return Ok(None) };
        let mut length = [0; LENGTH as usize];
        self.file.read_exact_at(&mut length, at)?;
        let length = u32::from_le_bytes(length);
        if u64::from(length) > most {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, at + LENGTH)?;
        Ok(Envelope::open(bytes.into()).ok())
    }
}

#[cfg(test)]
mod tests {
    use shm_test_support::TempDir;

    use super::*;
    use crate::envelope::{Builder, Head};

    fn envelope(seq: u64, len: usize) -> Envelope {
        let mut builder = Builder::new(1 << 20);
        builder.append(Head { lineage: 7, seq, time: None }, |out| out.resize(out.len() + len, seq as u8));
        Envelope::open(builder.finish().unwrap()).unwrap()
    }

    fn files(dir: &Path) -> usize {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|e| e == SUFFIX)).count()
    }

    #[test]
    fn what_was_not_released_is_there_after_a_restart_and_nothing_is_left_at_the_end() {
        let dir = TempDir::new();
        let mut spool = Spool::open(&dir, 1 << 30).unwrap();
        for seq in 0..50 {
            assert!(spool.append(&envelope(seq, 1 << 20), false).unwrap());
        }
        assert!(files(&dir) > 2 && !spool.pass_newest());
        for seq in 0..20 {
            assert_eq!(spool.load().unwrap(), envelope(seq, 1 << 20));
            spool.release();
        }
        drop(spool);
        let mut spool = Spool::open(&dir, 1 << 30).unwrap();
        assert_eq!(spool.tail(), Some((7, Place::message(50))));
        let mut next = spool.load().unwrap().start().seq;
        assert!(next <= 20, "envelopes that were not released are missing: {next}");
        while spool.has_unloaded() {
            next += 1;
            assert_eq!(spool.load().unwrap().start().seq, next);
        }
        assert_eq!(next, 49);
        for _ in 0..50 {
            spool.release();
        }
        assert_eq!((files(&dir), spool.bytes(), spool.tail()), (0, 0, None));
    }

    #[test]
    fn a_record_that_was_not_written_to_its_end_is_cut_off() {
        let dir = TempDir::new();
        let mut spool = Spool::open(&dir, 1 << 20).unwrap();
        assert!(spool.append(&envelope(1, 100), false).unwrap() && spool.append(&envelope(2, 100), false).unwrap());
        let (path, len) = (spool.segments[0].path.clone(), spool.bytes());
        drop(spool);
        for cut in [1, 100, 130] {
            File::options().write(true).open(&path).unwrap().set_len(len - cut).unwrap();
            let mut spool = Spool::open(&dir, 1 << 20).unwrap();
            assert_eq!((spool.unloaded, spool.load().unwrap()), (1, envelope(1, 100)), "without {cut} bytes");
            assert!(spool.append(&envelope(2, 100), false).unwrap());
            assert_eq!(spool.load().unwrap(), envelope(2, 100));
        }
    }

    #[test]
    fn a_full_spool_takes_only_what_has_to_go_in() {
        let dir = TempDir::new();
        let mut spool = Spool::open(&dir, 1000).unwrap();
        assert!(spool.append(&envelope(1, 500), false).unwrap() && !spool.append(&envelope(2, 500), false).unwrap());
        assert!(spool.append(&envelope(2, 500), true).unwrap());
    }

    #[test]
    fn a_spool_has_one_user() {
        let dir = TempDir::new();
        let spool = Spool::open(&dir, 1000).unwrap();
        let error = Spool::open(&dir, 1000).unwrap_err().to_string();
        assert!(error.contains("another relay uses it"), "{error}");
        drop(spool);
        Spool::open(&dir, 1000).unwrap();
    }
}
