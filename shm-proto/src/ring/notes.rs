//! What a daemon notes in a segment's header for the next daemon, with `pwrite`.
//!
//! A note lies in one page, so a daemon that is killed has written the whole note or nothing. A program that was lent
//! the writer role may have overwritten a note, so a process that reads a note checks it against the facts that the
//! note is about.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;

use nix::sys::uio::pwrite;

use super::layout::{NOTED, Notes, SIZE_WORDS, SOURCE_WORDS, SegmentHeader};
use super::segment_file::{read_exact, word};
use crate::error::{Result, SystemError};

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

/// Notes how many attached readers may stand in a segment, and the inode numbers of their pages.
///
/// # Errors
/// If the note cannot be written.
pub fn note_readers(fd: BorrowedFd<'_>, readers: u64, pages: impl Iterator<Item = u64>) -> Result<()> {
    const { assert!(offset_of!(Notes, pages) == offset_of!(Notes, readers) + 8) };
    let mut words = [0; 1 + NOTED];
    words[0] = readers;
    words[1..].iter_mut().zip(pages).for_each(|(word, page)| *word = page);
    put_words(fd, offset_of!(SegmentHeader, notes) + offset_of!(Notes, readers), &words)
}

/// The inode numbers of the noted pages.
///
/// # Errors
/// If the file cannot be read or is shorter than a header.
pub fn noted_pages(fd: BorrowedFd<'_>) -> Result<BTreeSet<u64>> {
    let pages: [u64; NOTED] = words(fd, offset_of!(Notes, pages))?;
    Ok(pages.into_iter().filter(|page| *page != 0).collect())
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
