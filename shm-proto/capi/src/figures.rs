//! The structures that the caller passes with their size.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::mem::{offset_of, size_of};

use shm_proto::{Content, Geometry, OnFull};

use crate::arguments::null;
use crate::failure::Failure;
use crate::result::{OK, Outcome};

/// `shmd_error`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorFacts {
    pub(crate) code: i32,
    pub(crate) system_errno: i32,
    pub(crate) number: u64,
    pub(crate) retry_after_ms: u64,
}

/// `shmd_facts`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    instance: u64,
    lineage: u64,
    max_capacity: u64,
    max_message: u64,
    ack_timeout_ms: u64,
    evict_after_ms: u64,
    align: u32,
    on_full: u32,
    ack: u32,
    wait_readers: u32,
    max_readers: u32,
    handoff: u32,
    channel: [c_char; 72],
}

/// `shmd_writer_state`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WriterState {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) readers: u32,
    pub(crate) drained: u32,
    pub(crate) shrinking: u32,
    pub(crate) disconnected: u32,
}

/// `shmd_stat`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stat {
    pub(crate) capacity: u64,
    pub(crate) min_capacity: u64,
    pub(crate) max_capacity: u64,
    pub(crate) pending_capacity: u64,
    pub(crate) memory: u64,
    pub(crate) used: u64,
    pub(crate) retained: u64,
    pub(crate) max_message: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) overwritten: u64,
    pub(crate) resizes: u64,
    pub(crate) evicted: u64,
    pub(crate) lag_messages: u64,
    pub(crate) messages_per_s: f64,
    pub(crate) bytes_per_s: f64,
    pub(crate) align: u32,
    pub(crate) readers: u32,
    pub(crate) max_readers: u32,
    pub(crate) writer_pid: u32,
    pub(crate) handoff: u32,
    pub(crate) reserved: u32,
}

/// `shmd_content`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ContentFacts {
    schema_bytes: u64,
    encoding: [c_char; 256],
    schema: [c_char; 256],
    schema_encoding: [c_char; 256],
}

// The test `abi` compares the C compiler's view with the file `layout`; these lines compare the Rust compiler's.
const _: () = {
    assert!(size_of::<ErrorFacts>() == 24 && offset_of!(ErrorFacts, retry_after_ms) == 16);
    assert!(size_of::<Facts>() == 144 && offset_of!(Facts, align) == 48 && offset_of!(Facts, channel) == 72);
    assert!(size_of::<WriterState>() == 40 && offset_of!(WriterState, readers) == 24);
    assert!(size_of::<ContentFacts>() == 776 && offset_of!(ContentFacts, schema_encoding) == 520);
    assert!(size_of::<Stat>() == 160 && offset_of!(Stat, align) == 136 && offset_of!(Stat, messages_per_s) == 120);
};

/// A structure that is plain numbers, without padding.
pub(crate) trait Figures: Copy {}
impl Figures for ErrorFacts {}
impl Figures for Facts {}
impl Figures for WriterState {}
impl Figures for Stat {}
impl Figures for ContentFacts {}

/// Gives the caller as much of the structure as it knows; what this library does not know is zero.
///
/// # Safety
/// `place` is NULL or has room for `size` bytes.
pub(crate) unsafe fn give<T: Figures>(place: *mut T, size: usize, figures: T, what: &str) -> Outcome {
    if place.is_null() {
        return Err(null(what));
    }
    if size == 0 {
        return Err(Failure::invalid(format!("the size of {what} is 0; pass sizeof *{what}")));
    }
    let known = size.min(size_of::<T>());
    // SAFETY: the caller has room for `size` bytes, and `figures` has no fewer than `known` bytes, all of them set.
    unsafe {
        std::ptr::copy_nonoverlapping((&raw const figures).cast::<u8>(), place.cast::<u8>(), known);
        place.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(OK)
}

/// As much of the text as there is room for, and a zero. No channel's name is cut, and no daemon declares a longer word.
fn name<const N: usize>(text: &str) -> [c_char; N] {
    let mut name = [0; N];
    for (to, from) in name.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from as c_char;
    }
    name
}

impl From<Option<&Content>> for ContentFacts {
    fn from(content: Option<&Content>) -> Self {
        let schema = content.and_then(|content| content.schema.as_ref());
        ContentFacts {
            schema_bytes: schema.map_or(0, |schema| schema.bytes),
            encoding: name(content.map_or("", |content| &content.encoding)),
            schema: name(schema.map_or("", |schema| &schema.name)),
            schema_encoding: name(schema.map_or("", |schema| &schema.encoding)),
        }
    }
}

impl From<&Geometry> for Facts {
    fn from(geometry: &Geometry) -> Self {
        Facts {
            instance: geometry.instance,
            lineage: geometry.lineage,
            max_capacity: geometry.max_capacity,
            max_message: geometry.max_message,
            ack_timeout_ms: geometry.ack_timeout_ms,
            evict_after_ms: geometry.evict_after_ms,
            align: geometry.align,
            on_full: match geometry.on_full {
                OnFull::Block => 0,
                OnFull::Drop => 1,
                OnFull::Overwrite => 2,
            },
            ack: u32::from(geometry.ack),
            wait_readers: geometry.wait_readers,
            max_readers: geometry.max_readers,
            handoff: 0,
            channel: name(&geometry.channel),
        }
    }
}

impl Facts {
    /// Of a handoff channel, in which every message is acknowledged.
    pub(crate) fn of_handoff(channel: &str, max_message: u64, ack_timeout_ms: u64) -> Self {
        Facts {
            instance: 0,
            lineage: 0,
            max_capacity: 0,
            max_message,
            ack_timeout_ms,
            evict_after_ms: 0,
            align: 1,
            on_full: 0,
            ack: 1,
            wait_readers: 0,
            max_readers: 0,
            handoff: 1,
            channel: name(channel),
        }
    }
}
