//! The bytes of a handoff segment, as a C compiler lays them out on 64-bit Linux.
//!
//! | x86-64 | 64-bit Arm | bytes | field |
//! |---|---|---|---|
//! | 0 | 0 | 40 or 48 | mutex: `pthread_mutex_t`, process-shared and robust |
//! | 40 | 48 | 8 | capacity: the segment's length as far as readers have been told |
//! | 48 | 56 | 8 | data size |
//! | 56 | 64 | 4 | ready flag |
//! | 60 | 68 | to the end | the message |
//!
//! C programs count on [`HEADER_SIZE`] bytes less than the capacity for a message: 64, or 72 on Arm.

use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use crate::os::mutex::{MUTEX_BYTES, MutexCell};
use crate::os::page::PAGE_SIZE;

/// The start of the segment. The mutex protects the other fields.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// `pthread_mutex_t`, process-shared.
    pub mutex: MutexCell,
    /// `size_t`: the length of the whole object that readers have been told, in bytes.
    pub capacity: AtomicU64,
    /// `size_t`: bytes of the message.
    pub data_size: AtomicU64,
    /// `int`: 1 while there is a message that no reader has read.
    pub ready_flag: AtomicI32,
    /// The first bytes of the message, which lie in the padding that a C compiler makes here.
    pub first: AtomicU32,
}

/// How many bytes of the message lie in [`Header::first`].
pub const FIRST: usize = size_of::<AtomicU32>();
/// Where the message starts: directly behind the flag, inside the header's padding.
pub const DATA: u64 = (MUTEX_BYTES + 20) as u64;
/// `sizeof(struct shm_header)` in C programs, which they subtract from the capacity.
pub const HEADER_SIZE: u64 = (MUTEX_BYTES + 24) as u64;
/// The smallest object: one page.
pub const PAGE: u64 = PAGE_SIZE as u64;

const _: () = {
    assert!(offset_of!(Header, mutex) == 0);
    assert!(offset_of!(Header, capacity) == MUTEX_BYTES);
    assert!(offset_of!(Header, data_size) == MUTEX_BYTES + 8);
    assert!(offset_of!(Header, ready_flag) == MUTEX_BYTES + 16);
    assert!(offset_of!(Header, ready_flag) + size_of::<AtomicI32>() == DATA as usize);
    // Flag and first bytes are stored in one piece: see `Segment::place`.
    assert!(offset_of!(Header, ready_flag).is_multiple_of(8));
    assert!(offset_of!(Header, first) == DATA as usize);
    assert!(size_of::<Header>() == HEADER_SIZE as usize);
};
