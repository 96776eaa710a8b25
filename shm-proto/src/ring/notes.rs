//! What a daemon notes in a segment's header for the one that comes after it, by `pwrite`.
//!
//! A note lies in one page, so a daemon that is killed has written all of it or nothing. A program that was lent the writer role
//! may have written over it: whoever reads a note checks it against what the note is about.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use nix::sys::uio::pwrite;

use super::layout::{NOTED, Notes, SIZE_WORDS, SOURCE_WORDS, SegmentHeader};
use super::segment_file::{read_exact, word};
use crate::error::{Result, SystemError};

/// A change of the capacity that is under way, and what the daemon has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeNote {
    /// The capacity that the channel has, or is to have; 0 for no note. The header has what the last writer knew of it.
    pub goal: u64,
    /// Who wants that, by a number of the daemon's; 0 if the channel has it.
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
    /// The file's number there, 0 for no note.
    pub inode: u64,
    /// When the file was made, in nanoseconds since 1970; 0 if the file system does not tell.
    pub born_ns: u64,
    /// Where what was not published yet begins.
    pub offset: u64,
    /// The number of the next message.
    pub seq: u64,
    /// Messages dropped before, because the ring was full.
    pub dropped: u64,
    /// Payload bytes published before.
    pub bytes: u64,
    /// How the file is cut into messages, by a number of the daemon's.
    pub cutting: u64,
}

/// Notes how many attached readers may stand in a segment, and the numbers of their pages' files.
///
/// # Errors
/// When it cannot be written.
pub fn note_readers(fd: BorrowedFd<'_>, readers: u64, pages: impl Iterator<Item = u64>) -> Result<()> {
    const { assert!(offset_of!(Notes, pages) == offset_of!(Notes, readers) + 8) };
    let mut words = [0; 1 + NOTED];
    words[0] = readers;
    words[1..].iter_mut().zip(pages).for_each(|(word, page)| *word = page);
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, readers), &words)
}

/// The numbers of the noted pages' files.
///
/// # Errors
/// When the file cannot be read or is shorter than a header.
pub fn noted_pages(fd: BorrowedFd<'_>) -> Result<BTreeSet<u64>> {
    let pages: [u64; NOTED] = words(fd, offset_of!(Notes, pages))?;
    Ok(pages.into_iter().filter(|page| *page != 0).collect())
}

/// Notes what is being done about the capacity.
///
/// # Errors
/// When it cannot be written.
pub fn note_size(fd: BorrowedFd<'_>, note: SizeNote) -> Result<()> {
    let SizeNote { goal, by, resizes, evicted } = note;
    let words: [u64; SIZE_WORDS] = [goal, by, resizes, evicted];
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, size), &words)
}

/// What was being done about the capacity.
///
/// # Errors
/// When the file cannot be read or is shorter than a header.
pub fn noted_size(fd: BorrowedFd<'_>) -> Result<SizeNote> {
    let [goal, by, resizes, evicted]: [u64; SIZE_WORDS] = words(fd, offset_of!(Notes, size))?;
    Ok(SizeNote { goal, by, resizes, evicted })
}

/// Notes how far a source has read its file.
///
/// # Errors
/// When it cannot be written.
pub fn note_source(fd: BorrowedFd<'_>, note: SourceNote) -> Result<()> {
    let SourceNote { device, inode, born_ns, offset, seq, dropped, bytes, cutting } = note;
    let words: [u64; SOURCE_WORDS] = [device, inode, born_ns, offset, seq, dropped, bytes, cutting];
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, source), &words)
}

/// How far a source had read its file.
///
/// # Errors
/// When the file cannot be read or is shorter than a header.
pub fn noted_source(fd: BorrowedFd<'_>) -> Result<SourceNote> {
    let [device, inode, born_ns, offset, seq, dropped, bytes, cutting]: [u64; SOURCE_WORDS] =
        words(fd, offset_of!(Notes, source))?;
    Ok(SourceNote { device, inode, born_ns, offset, seq, dropped, bytes, cutting })
}

/// Copies all notes from one segment to another that nobody has seen yet.
///
/// # Errors
/// When they cannot be read or written.
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
