//! What a reader has lent to the program.

use std::ptr;

use shm_proto::{Message, Reader, Views};

/// `shmd_message`.
#[repr(C)]
#[derive(Debug)]
pub struct ShmdMessage {
    pub(crate) data: *const u8,
    pub(crate) len: usize,
    pub(crate) seq: u64,
    pub(crate) lost_before: u64,
    pub(crate) generation: u64,
    pub(crate) published_ns: u64,
    pub(crate) reserved: [u64; 2],
}

const _: () = assert!(size_of::<ShmdMessage>() == 64 && std::mem::offset_of!(ShmdMessage, generation) == 32);

impl ShmdMessage {
    /// The program has finished with it.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        (self.data, self.generation) = (ptr::null(), 0);
    }
}

/// What is open. The borrow is of the reader in the same handle: see `source`.
#[derive(Debug)]
pub(crate) enum Held {
    /// Nothing.
    Nothing,
    /// A ring's message.
    Message(Message<'static>),
    /// Several of them.
    Many(Views<'static>),
    /// A message of a handoff, which was copied to the handle's buffer.
    Copy,
}

impl Held {
    #[inline(always)]
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Held::Nothing)
    }

    /// The ring's reader that lends what is open.
    pub(crate) fn reader(&self) -> Option<&Reader> {
        match self {
            Held::Message(message) => Some(message.reader()),
            Held::Many(views) => Some(views.reader()),
            Held::Nothing | Held::Copy => None,
        }
    }
}
