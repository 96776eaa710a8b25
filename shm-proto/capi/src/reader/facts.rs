//! What a reader knows.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use shm_proto::{Attachment, Reader};

use super::ShmdReader;
use crate::arguments::null;
use crate::failure::Failure;
use crate::figures::{self, ContentFacts, Facts};
use crate::held::Held;
use crate::result::finish;
use crate::source::Source;

impl ShmdReader {
    /// The handle, for a look.
    ///
    /// # Safety
    /// `reader` is NULL or a handle that was not freed, and that no other thread uses.
    pub(super) unsafe fn seen<'a>(reader: *const ShmdReader) -> Result<&'a ShmdReader, Failure> {
        // SAFETY: promised by the caller.
        let reader = unsafe { reader.as_ref() }.ok_or_else(|| null("reader"))?;
        reader.guard.check().map(|()| reader)
    }

    /// The present attachment.
    fn attachment(&self) -> Option<At<'_>> {
        if let Some(reader) = self.held.reader() {
            return Some(At::Ring(reader));
        }
        match &self.source {
            // SAFETY: nothing of the reader is lent, and no call changes it while this result is in use.
            Source::Ring(reader) => Some(At::Ring(unsafe { reader.borrow() })),
            Source::Handoff(reader) => Some(At::Handoff(reader)),
            Source::Follower(follower, _) => {
                // SAFETY: as above.
                let follower = unsafe { follower.borrow() };
                if !follower.is_attached() {
                    return None;
                }
                match follower.attachment().ok()?? {
                    Attachment::Ring(reader) => Some(At::Ring(reader)),
                    Attachment::Handoff(reader) => Some(At::Handoff(reader)),
                }
            }
        }
    }

    /// A figure of a ring's reader. Of a handoff's: the number of messages that the program is done with.
    fn figure(&self, of_ring: impl FnOnce(&Reader) -> u64) -> u64 {
        match self.attachment() {
            Some(At::Ring(reader)) => of_ring(reader),
            Some(At::Handoff(reader)) => {
                let is_open = matches!(self.held, Held::Copy) || self.kept.is_some();
                reader.received().saturating_sub(is_open.into())
            }
            None => 0,
        }
    }
}

/// A look at an attachment.
enum At<'a> {
    Ring(&'a Reader),
    Handoff(&'a shm_proto::HandoffReader),
}

fn not_attached() -> Failure {
    Failure::state("the reader follows its channel, and is not attached to it now")
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_seq(reader: *const ShmdReader) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { ShmdReader::seen(reader) }.map_or(0, |reader| reader.figure(Reader::seq))
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_received(reader: *const ShmdReader) -> u64 {
    // SAFETY: promised by the caller.
    unsafe { ShmdReader::seen(reader) }.map_or(0, |reader| reader.figure(Reader::received))
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_lost(reader: *const ShmdReader) -> u64 {
    // SAFETY: promised by the caller.
    match unsafe { ShmdReader::seen(reader) }.ok().and_then(ShmdReader::attachment) {
        Some(At::Ring(reader)) => reader.lost(),
        // A handoff does not overwrite.
        Some(At::Handoff(_)) | None => 0,
    }
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_skipped_before(reader: *const ShmdReader) -> u64 {
    // SAFETY: promised by the caller.
    match unsafe { ShmdReader::seen(reader) } {
        Ok(ShmdReader { held: Held::Message(message), .. }) => message.skipped_before(),
        _ => 0,
    }
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_is_attached(reader: *const ShmdReader) -> c_int {
    // SAFETY: promised by the caller.
    c_int::from(unsafe { ShmdReader::seen(reader) }.is_ok_and(|reader| reader.attachment().is_some()))
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `facts` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_facts(reader: *const ShmdReader, facts: *mut Facts, size: usize) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let known = match unsafe { ShmdReader::seen(reader)? }.attachment() {
            Some(At::Ring(reader)) => Facts::from(reader.geometry()),
            Some(At::Handoff(reader)) => {
                let facts = reader.facts();
                Facts::of_handoff(&facts.channel, facts.max_message, facts.ack_timeout_ms)
            }
            None => return Err(not_attached()),
        };
        // SAFETY: promised by the caller.
        unsafe { figures::give(facts, size, known, "facts") }
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `content` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_content(
    reader: *const ShmdReader,
    content: *mut ContentFacts,
    size: usize,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let known = match unsafe { ShmdReader::seen(reader)? }.attachment() {
            Some(At::Ring(reader)) => ContentFacts::from(reader.content()),
            Some(At::Handoff(reader)) => ContentFacts::from(reader.facts().content.as_ref()),
            None => return Err(not_attached()),
        };
        // SAFETY: promised by the caller.
        unsafe { figures::give(content, size, known, "content") }
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_notice(reader: *mut ShmdReader) -> *const c_char {
    // SAFETY: promised by the caller.
    let Ok(reader) = (unsafe { ShmdReader::idle(reader) }) else { return ptr::null() };
    let Source::Follower(follower, _) = &reader.source else { return ptr::null() };
    // SAFETY: nothing is open, and nothing of this borrow is kept.
    let notice = unsafe { follower.borrow() }.notice();
    reader.notice = notice.map(|notice| CString::new(notice.to_string().replace('\0', "\u{fffd}")).unwrap_or_default());
    reader.notice.as_ref().map_or(ptr::null(), |notice| notice.as_ptr())
}
