//! The bytes of a handoff segment, as a C compiler lays them out on 64-bit Linux.

use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicI32, AtomicU64};

use crate::os::mutex::MutexCell;

/// What stands at the start of the segment. All but the mutex is protected by it.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// `pthread_mutex_t`, process-shared.
    pub mutex: MutexCell,
    /// `size_t`: the object's whole length in bytes as readers have been told.
    pub capacity: AtomicU64,
    /// `size_t`: bytes of the message.
    pub data_size: AtomicU64,
    /// `int`: 1 from the moment a message is there until a reader has read it.
    pub ready_flag: AtomicI32,
}

/// Where the message starts.
pub const DATA: u64 = 60;
/// What C programs call `sizeof(struct shm_header)`, and take off the capacity.
pub const HEADER_SIZE: u64 = 64;
/// The smallest object: one page.
pub const PAGE: u64 = 4096;

const _: () = {
    assert!(offset_of!(Header, mutex) == 0);
    assert!(offset_of!(Header, capacity) == 40);
    assert!(offset_of!(Header, data_size) == 48);
    assert!(offset_of!(Header, ready_flag) == 56);
    assert!(offset_of!(Header, ready_flag) + size_of::<AtomicI32>() == DATA as usize);
    assert!(size_of::<Header>() == HEADER_SIZE as usize);
};
