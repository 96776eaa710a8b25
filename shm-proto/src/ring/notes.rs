//! What a daemon notes in a segment's header for the next daemon, with `pwrite`.
//!
//! A note lies in one page, so a daemon that is killed has written the whole note or nothing. A program that was lent
//! the writer role may have overwritten a note, so a process that reads a note checks it against the facts that the
//! note is about.

use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use nix::sys::uio::pwrite;

use super::layout::{HANDOFF_WORDS, NOTED, Notes, PID_BITS, SIZE_WORDS, SOURCE_WORDS, SegmentHeader};
use super::segment_file::{read_exact, word};
use crate::error::{Result, SystemError};
use crate::os::process;

/// A change of the capacity that is in progress, and the daemon's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeNote {
    /// The capacity that the channel has, or is to have; 0 for no note. The header has the value that the last writer
    /// knew.
    pub goal: u64,
    /// Who wants that capacity, as a number that the daemon defines; 0 if the channel already has it.
    pub by: u64,
    /// Changes of the capacity that took effect.
    pub resizes: u64,
    /// Readers that were evicted.
    pub evicted: u64,
}

/// How far a source had read its file when it had published or dropped a certain number of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceNote {
    /// The device of the file.
    pub device: u64,
    /// The inode number of the file on that device, 0 for no note.
    pub inode: u64,
    /// When the file was created, in nanoseconds since 1970; 0 if the file system does not record that.
    pub born_ns: u64,
    /// The offset of the first byte that has not been published yet.
    pub offset: u64,
    /// The number of the next message.
    pub seq: u64,
    /// Messages dropped before that offset, because the ring was full.
    pub dropped: u64,
    /// Payload bytes published before that offset.
    pub bytes: u64,
    /// How the file is split into messages, as a number that the daemon defines.
    pub cutting: u64,
}

/// An attached reader, as the next daemon knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedReader {
    /// The inode number of its page.
    pub page: u64,
    /// Its process as the daemon sees it, 0 if it does not.
    pub pid: u32,
}

/// The readers that were noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotedReaders {
    readers: Vec<NotedReader>,
    noted_at: u64,
    /// The process numbers are not valid here.
    is_elsewhere: bool,
}

impl NotedReaders {
    /// These readers, noted at a time in clock ticks after boot.
    #[must_use]
    pub fn new(readers: Vec<NotedReader>, noted_at: u64) -> Self {
        Self { readers, noted_at, is_elsewhere: false }
    }

    /// The inode numbers of their pages, and their process numbers, 0 if they are not known.
    pub fn iter(&self) -> impl Iterator<Item = NotedReader> {
        self.readers.iter().map(|reader| NotedReader { pid: if self.is_elsewhere { 0 } else { reader.pid }, ..*reader })
    }

    /// When they were noted, in clock ticks after boot. None of their processes started later.
    #[must_use]
    pub fn noted_at(&self) -> u64 {
        self.noted_at
    }
}

/// Notes how many attached readers may stand in a segment, and who they are.
///
/// # Errors
/// If the note cannot be written.
pub fn note_readers(fd: BorrowedFd<'_>, count: u64, readers: impl Iterator<Item = NotedReader>) -> Result<()> {
    const FIRST: usize = 3;
    const { assert!(offset_of!(Notes, pages) == offset_of!(Notes, readers) + 8 * FIRST) };
    let mut words = [0; FIRST + NOTED];
    (words[0], words[1], words[2]) = (count, process::now_ticks(), process::pid_namespace());
    let readers = readers.filter(|reader| reader.page < 1 << (u64::BITS - PID_BITS));
    words[FIRST..].iter_mut().zip(readers).for_each(|(word, NotedReader { page, pid })| {
        let pid = if pid < 1 << PID_BITS { pid } else { 0 };
        *word = page << PID_BITS | u64::from(pid);
    });
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, readers), &words)
}

/// Who was noted.
///
/// # Errors
/// If the file cannot be read or is shorter than a header.
pub fn noted_readers(fd: BorrowedFd<'_>) -> Result<NotedReaders> {
    let [noted_at, pid_namespace]: [u64; 2] = words(fd, offset_of!(Notes, noted_at))?;
    let pages: [u64; NOTED] = words(fd, offset_of!(Notes, pages))?;
    let pid = |word: u64| (word & ((1 << PID_BITS) - 1)) as u32;
    let noted = pages.into_iter().map(|word| NotedReader { page: word >> PID_BITS, pid: pid(word) });
    let is_elsewhere = pid_namespace == 0 || pid_namespace != process::pid_namespace();
    let readers = noted.filter(|reader| reader.page != 0).collect();
    Ok(NotedReaders { is_elsewhere, ..NotedReaders::new(readers, noted_at) })
}

/// Notes the change of the capacity that is in progress.
///
/// # Errors
/// If the note cannot be written.
pub fn note_size(fd: BorrowedFd<'_>, note: SizeNote) -> Result<()> {
    let SizeNote { goal, by, resizes, evicted } = note;
    let words: [u64; SIZE_WORDS] = [goal, by, resizes, evicted];
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, size), &words)
}

/// The change of the capacity that was in progress.
///
/// # Errors
/// If the file cannot be read or is shorter than a header.
pub fn noted_size(fd: BorrowedFd<'_>) -> Result<SizeNote> {
    let [goal, by, resizes, evicted]: [u64; SIZE_WORDS] = words(fd, offset_of!(Notes, size))?;
    Ok(SizeNote { goal, by, resizes, evicted })
}

/// Notes how far a source has read its file.
///
/// # Errors
/// If the note cannot be written.
pub fn note_source(fd: BorrowedFd<'_>, note: SourceNote) -> Result<()> {
    let SourceNote { device, inode, born_ns, offset, seq, dropped, bytes, cutting } = note;
    let words: [u64; SOURCE_WORDS] = [device, inode, born_ns, offset, seq, dropped, bytes, cutting];
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, source), &words)
}

/// How far a source had read its file.
///
/// # Errors
/// If the file cannot be read or is shorter than a header.
pub fn noted_source(fd: BorrowedFd<'_>) -> Result<SourceNote> {
    let [device, inode, born_ns, offset, seq, dropped, bytes, cutting]: [u64; SOURCE_WORDS] =
        words(fd, offset_of!(Notes, source))?;
    Ok(SourceNote { device, inode, born_ns, offset, seq, dropped, bytes, cutting })
}

/// How far the daemon's thread has come that hands over the messages of a handoff channel's feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoffNote {
    /// The number of the message that the stage is about.
    pub number: u64,
    /// How far the thread is with the message, as a number that the daemon defines; 0 for no note.
    pub stage: u64,
    /// Messages acknowledged.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages given up.
    pub dropped: u64,
    /// Changes of the length of the handoff's segment.
    pub resizes: u64,
    /// A length of the handoff's segment that waits for the end of the message, 0 for none.
    pub shrink_to: u64,
}

/// Notes how far a handoff has come.
///
/// # Errors
/// If the note cannot be written.
pub fn note_handoff(fd: BorrowedFd<'_>, note: HandoffNote) -> Result<()> {
    let HandoffNote { number, stage, messages, bytes, dropped, resizes, shrink_to } = note;
    let words: [u64; HANDOFF_WORDS] = [number, stage, messages, bytes, dropped, resizes, shrink_to];
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, handoff), &words)
}

/// How far a handoff had come.
///
/// # Errors
/// If the file cannot be read or is shorter than a header.
pub fn noted_handoff(fd: BorrowedFd<'_>) -> Result<HandoffNote> {
    let [number, stage, messages, bytes, dropped, resizes, shrink_to]: [u64; HANDOFF_WORDS] =
        words(fd, offset_of!(Notes, handoff))?;
    Ok(HandoffNote { number, stage, messages, bytes, dropped, resizes, shrink_to })
}

/// Notes how many readers the writer does not know, because it has not found this daemon yet. The caller must run a
/// [heavy barrier](crate::os::barrier::heavy) before it answers such a reader.
///
/// # Errors
/// If the note cannot be written.
pub fn note_unnamed(fd: BorrowedFd<'_>, readers: u64) -> Result<()> {
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, unnamed), &[readers])
}

/// How many readers the writer does not know.
///
/// # Errors
/// If the file cannot be read or is shorter than a header.
pub fn noted_unnamed(fd: BorrowedFd<'_>) -> Result<u64> {
    let [readers]: [u64; 1] = words(fd, offset_of!(Notes, unnamed))?;
    Ok(readers)
}

/// Copies all notes from one segment to another that no other process has seen yet.
///
/// # Errors
/// If the notes cannot be read or written.
pub fn copy_notes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let notes: [u64; size_of::<Notes>() / 8] = words(from, 0)?;
    put_words(to, offset_of!(SegmentHeader, notes), &notes)
}

fn words<const N: usize>(fd: BorrowedFd<'_>, at: usize) -> Result<[u64; N]> {
    let mut bytes = vec![0u8; 8 * N];
    read_exact(fd, &mut bytes, offset_of!(SegmentHeader, notes) + at)?;
    Ok(std::array::from_fn(|n| word(&bytes, 8 * n)))
}

pub(super) fn put_words(fd: BorrowedFd<'_>, at: usize, words: &[u64]) -> Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    match pwrite(fd, &bytes, at as i64) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => {
            Err(SystemError::new("write the segment's header", std::io::Error::from(std::io::ErrorKind::WriteZero)))
        }
        Err(e) => Err(SystemError::new("write the segment's header", e)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn readers_are_noted_with_their_processes_as_far_as_these_are_known_here() {
        let file = std::fs::File::from(memfd_create("notes", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(size_of::<SegmentHeader>() as u64).unwrap();
        let reader = |page, pid| NotedReader { page, pid };
        let all = [reader(7, 700), reader(8, 0), reader(9, u32::MAX), reader(1 << 42, 1), reader((1 << 42) - 1, 1)];
        let before = process::now_ticks();
        note_readers(file.as_fd(), 5, all.into_iter()).unwrap();
        let noted = noted_readers(file.as_fd()).unwrap();
        let known = [reader(7, 700), reader(8, 0), reader(9, 0), reader((1 << 42) - 1, 1)];
        assert_eq!(noted.iter().collect::<Vec<_>>(), known);
        assert!((before..=process::now_ticks()).contains(&noted.noted_at()));
        // A daemon in another PID namespace cannot look at these processes.
        let namespace = offset_of!(SegmentHeader, notes) + offset_of!(Notes, pid_namespace);
        for other in [0, u64::MAX] {
            file.write_all_at(&other.to_le_bytes(), namespace as u64).unwrap();
            assert!(noted_readers(file.as_fd()).unwrap().iter().all(|reader| reader.pid == 0));
        }
        // No more than there is space for.
        note_readers(file.as_fd(), 1000, (1..=1000).map(|page| reader(page, 1))).unwrap();
        assert_eq!(noted_readers(file.as_fd()).unwrap().iter().count(), NOTED);
        assert_eq!((noted_size(file.as_fd()).unwrap(), noted_handoff(file.as_fd()).unwrap()), Default::default());
    }
}
