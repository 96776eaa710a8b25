//! Segments, and both sides of them without a daemon.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::uio::pread;
use shm_proto::Geometry;
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::layout::{DATA_OFFSET, LeasePage, ReaderPage, control};
use shm_proto::internal::ring::link::{Link, LinkError, ToDaemon, ToWriter};
use shm_proto::internal::ring::{Beginning, Owner, Reader, ReaderError, Writer, WriterError, begin_segment};
use shm_proto::{OnFull, Start};

use crate::bytes::Bytes;
use crate::scratch;

/// Bytes of the data area of the segments that are made here.
pub(crate) const CAPACITY: u64 = 16 << 10;
/// What they may grow to: readers map more than the file has.
pub(crate) const MAX: u64 = 2 * CAPACITY;

/// A daemon that never says anything and to which nothing gets through.
#[derive(Debug)]
struct Silence;

impl Link<ToWriter, ToDaemon> for Silence {
    fn receive(&mut self) -> Result<Option<(ToWriter, Vec<OwnedFd>)>, LinkError> {
        Ok(None)
    }

    fn send(&mut self, _: ToDaemon) -> Result<(), LinkError> {
        Ok(())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Takes the writer role of a segment.
pub(crate) fn writer(segment: BorrowedFd<'_>, geometry: &Geometry, capacity: u64) -> Result<Writer, WriterError> {
    let (page, _) = SharedPage::<LeasePage>::create("shm-fuzz-lease").expect("a page can be made");
    Writer::open(segment, page, Box::new(Silence), geometry.clone(), capacity)
}

/// Attaches to a segment as a reader that no writer knows.
pub(crate) fn reader(segment: BorrowedFd<'_>, geometry: &Geometry, start: Start) -> Result<Reader, ReaderError> {
    reader_with(segment, geometry, start, 0)
}

/// The same with these bits of its control word set.
pub(crate) fn reader_with(
    segment: BorrowedFd<'_>,
    geometry: &Geometry,
    start: Start,
    bits: u32,
) -> Result<Reader, ReaderError> {
    let (page, fd) = SharedPage::<ReaderPage>::create("shm-fuzz-reader").expect("a page can be made");
    page.control.value.store(bits & control::REGISTERED, std::sync::atomic::Ordering::SeqCst);
    let (_bell, sleeper) = Bell::new().expect("a bell can be made");
    Reader::open(segment, fd.as_fd(), sleeper, geometry.clone(), start, None)
}

/// Receives everything there is, and returns how many messages that was.
///
/// # Errors
/// The reader's, with the number of messages before it.
pub(crate) fn read_all(reader: &mut Reader, most: u64) -> Result<u64, (u64, ReaderError)> {
    let mut bytes = Vec::new();
    for received in 0..=most {
        match reader.try_recv() {
            Ok(None) => return Ok(received),
            Ok(Some(message)) => {
                message.copy_to_vec(&mut bytes);
                if let Err(e) = message.finish() {
                    return Err((received, e));
                }
            }
            Err(e) => return Err((received, e)),
        }
    }
    panic!("a reader receives more than {most} messages of a ring that has no room for them");
}

/// The bytes of a segment that was written by a correct writer, with a floor that has moved and a jump back to the beginning.
pub(crate) fn written(geometry: &Geometry, owner: Owner) -> Vec<u8> {
    let length = (DATA_OFFSET + CAPACITY) as usize;
    let file = scratch::file(&vec![0; length]);
    let beginning = Beginning { pos: 1 << 20, seq: 1000, ..Beginning::default() };
    begin_segment(file.as_fd(), geometry, CAPACITY, owner, &beginning).expect("a header can be written");
    let mut writer = writer(file.as_fd(), geometry, CAPACITY).expect("a new segment can be written");
    for n in 0..60u32 {
        let message = vec![n as u8; (n * 37 % 900) as usize];
        let _ = writer.try_publish(&message).expect("a correct writer can publish");
    }
    drop(writer);
    let mut bytes = vec![0; length];
    assert_eq!(pread(&file, &mut bytes, 0).expect("a file in memory can be read"), length);
    bytes
}

/// The facts of the segment that is made here, of one kind or another.
pub(crate) fn geometry(kind: u8) -> Geometry {
    let mut geometry = Geometry::new("fuzz".parse().expect("a name"), 42, MAX, 4000);
    geometry.align = [16, 64, 32, 4096][usize::from(kind & 3)];
    geometry.on_full = [OnFull::Overwrite, OnFull::Block, OnFull::Drop, OnFull::Overwrite][usize::from(kind >> 2 & 3)];
    geometry
}

/// Writes over words of a segment, as the input says.
pub(crate) fn patch(segment: &mut [u8], input: &mut Bytes<'_>) {
    let words = segment.len() / 8;
    let at = |word: usize| word % words * 8..word % words * 8 + 8;
    while !input.is_empty() {
        let (what, word) = (input.byte(), usize::from(input.half()));
        let old = u64::from_le_bytes(segment[at(word)].try_into().expect("8 bytes"));
        let new = match what % 8 {
            0 | 1 => input.word(),
            2 => old.wrapping_add_signed(i64::from(input.byte() as i8)),
            3 => old.wrapping_add_signed(8 * i64::from(input.byte() as i8)),
            4 => old ^ 1 << (input.byte() & 63),
            5 => {
                let from = usize::from(input.half());
                u64::from_le_bytes(segment[at(from)].try_into().expect("8 bytes"))
            }
            // A record's header: kind, length or target, and the number of the message.
            6 => u64::from(input.byte() & 3) | u64::from(input.half()) << 4 | old & !0 << 44,
            _ => u64::from(input.half()),
        };
        segment[at(word)].copy_from_slice(&new.to_le_bytes());
    }
}
