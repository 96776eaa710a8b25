//! A reader's handle, and the calls that receive.
#![allow(unsafe_code)]

mod copy;
mod facts;
mod handoff;
mod many;
mod waiting;

use std::ffi::{CString, c_char, c_int};
use std::time::Duration;

use shm_proto::{Attachment, Follower, Message, ReaderError, Start};

use crate::arguments::{self, null, out};
use crate::endpoint::ShmdEndpoint;
use crate::failure::Failure;
use crate::guard::Guard;
use crate::held::{Held, ShmdMessage};
use crate::result::{NONE, OK, Outcome, finish};
use crate::source::{Next, Source, timed_out};

/// `shmd_reader`. The fields are dropped from the first to the last: what is lent before the source.
#[derive(Debug)]
pub struct ShmdReader {
    guard: Guard,
    held: Held,
    /// Of the message that is open, or was open last.
    generation: u64,
    source: Source,
    /// A message of a handoff.
    buffer: Vec<u8>,
    /// The number of a handoff's message that is in the buffer and was not given to the program, whose memory was too small.
    kept: Option<u64>,
    /// Messages that were lost before one that was overwritten while it was copied. The next message's `lost_before` counts them.
    lost_untold: u64,
    notice: Option<CString>,
}

impl ShmdReader {
    fn hand_out(source: Source, place: &mut *mut ShmdReader) -> Outcome {
        let (guard, held) = (Guard::new()?, Held::Nothing);
        let (buffer, kept, notice) = (Vec::new(), None, None);
        let reader = ShmdReader { guard, held, generation: 0, source, buffer, kept, lost_untold: 0, notice };
        let reader = Box::into_raw(Box::new(reader));
        // So that a message of another reader is not taken for one of this reader.
        // SAFETY: it was made just now.
        unsafe { (*reader).generation = (reader as u64) << 16 };
        *place = reader;
        Ok(OK)
    }

    /// The handle, if it may be used.
    ///
    /// # Safety
    /// `reader` is NULL or a handle that was not freed, and that no other thread uses.
    #[inline(always)]
    unsafe fn usable<'a>(reader: *mut ShmdReader) -> Result<&'a mut ShmdReader, Failure> {
        // SAFETY: promised by the caller.
        match unsafe { reader.as_mut() } {
            Some(reader) if reader.guard.is_ours() => Ok(reader),
            Some(reader) => Err(reader.guard.check().err().unwrap_or_else(|| null("reader"))),
            None => Err(null("reader")),
        }
    }

    /// What a receiving call needs, if nothing about it is special.
    ///
    /// # Safety
    /// As [`usable`](Self::usable); `message` is NULL or may be written.
    #[inline(always)]
    unsafe fn at_hand(reader: *mut ShmdReader, message: *mut ShmdMessage) -> bool {
        // SAFETY: promised by the caller.
        let (Some(reader), Some(to)) = (unsafe { (reader.as_mut(), message.as_mut()) }) else { return false };
        let Source::Ring(ring) = &reader.source else { return false };
        if !reader.guard.is_ours() || !reader.held.is_nothing() {
            return false;
        }
        // SAFETY: nothing is open, and `held` is dropped before `source`.
        let Some(message) = (unsafe { ring.borrow() }).take_at_hand() else { return false };
        reader.lend(message, to);
        true
    }

    /// The handle, if it may be used and nothing is open.
    ///
    /// # Safety
    /// As [`usable`](Self::usable).
    #[inline(always)]
    unsafe fn idle<'a>(reader: *mut ShmdReader) -> Result<&'a mut ShmdReader, Failure> {
        // SAFETY: promised by the caller.
        let reader = unsafe { Self::usable(reader)? };
        if reader.held.is_nothing() { Ok(reader) } else { Err(reader.is_open()) }
    }

    #[cold]
    fn is_open(&self) -> Failure {
        Failure::state("the reader has lent a message that is not finished; call shmd_reader_finish() first")
    }

    #[cold]
    fn is_stale(&self) -> Failure {
        Failure::state(match self.held {
            Held::Nothing => "the reader has lent no message; this one was finished before",
            _ => {
                "this is not the message that the reader has lent; it was finished before, or comes from another reader"
            }
        })
    }

    /// Opens a ring's message.
    #[inline(always)]
    fn lend(&mut self, message: Message<'static>, to: &mut ShmdMessage) {
        self.generation += 1;
        (to.data, to.len) = (message.as_ptr(), message.len());
        (to.seq, to.lost_before, to.generation) = (message.seq(), message.lost_before(), self.generation);
        to.published_ns = message.published_ns().unwrap_or(0);
        if self.lost_untold != 0 {
            to.lost_before += std::mem::take(&mut self.lost_untold);
        }
        // Nothing was open, so that nothing has to be dropped.
        std::mem::forget(std::mem::replace(&mut self.held, Held::Message(message)));
    }

    /// Opens the message in the buffer.
    fn lend_copy(&mut self, seq: u64, to: &mut ShmdMessage) {
        self.generation += 1;
        (to.data, to.len) = (self.buffer.as_ptr(), self.buffer.len());
        (to.seq, to.lost_before, to.generation, to.published_ns) = (seq, 0, self.generation, 0);
        self.held = Held::Copy;
    }

    /// The next message of any source. Nothing may be open.
    fn next(&mut self, wait: bool, timeout: Option<Duration>) -> Result<Option<Next>, Failure> {
        debug_assert!(self.held.is_nothing());
        if let Some(seq) = self.kept.take() {
            return Ok(Some(Next::Copy(seq)));
        }
        // SAFETY: nothing is open, and `held` is dropped before `source`.
        unsafe { self.source.next(&mut self.buffer, wait, timeout) }
    }

    fn receive(&mut self, to: &mut ShmdMessage, wait: bool, timeout: Option<Duration>) -> Outcome {
        match self.next(wait, timeout)? {
            Some(Next::Message(message)) => self.lend(message, to),
            Some(Next::Copy(seq)) => self.lend_copy(seq, to),
            None if wait => return Err(timed_out(timeout)),
            None => return Ok(NONE),
        }
        Ok(OK)
    }

    /// A follower goes on after an error; any other reader just reports it.
    #[cold]
    fn went_wrong(&mut self, error: ReaderError) -> Failure {
        let failure = Failure::from(&error);
        if let Source::Follower(follower, _) = &self.source {
            // SAFETY: the message that was open has ended with this error.
            if let Err(error) = unsafe { follower.borrow() }.go_on_after(error) {
                return error.into();
            }
        }
        failure
    }

    fn end_other(&mut self) -> Outcome {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => Err(Failure::state("the reader has lent no message; this one was finished before")),
            Held::Message(message) => message.finish().map(|()| OK).map_err(|error| self.went_wrong(error)),
            Held::Copy => {
                self.acknowledge();
                Ok(OK)
            }
            Held::Many(views) => {
                self.held = Held::Many(views);
                Err(Failure::state("the reader has lent several messages; call shmd_reader_finish_many()"))
            }
        }
    }
}

fn start(start: c_int) -> Result<Start, Failure> {
    match start {
        0 => Ok(Start::New),
        1 => Ok(Start::Oldest),
        other => Err(Failure::invalid(format!("start is {other}, and has to be SHMD_NEW or SHMD_OLDEST"))),
    }
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed, `channel` is NULL or a text, `reader` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_attach(
    endpoint: *const ShmdEndpoint,
    channel: *const c_char,
    from: c_int,
    reader: *mut *mut ShmdReader,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, channel) = unsafe { (out(reader, "reader")?, arguments::text(channel, "channel's name")?) };
        // SAFETY: promised by the caller.
        let endpoint = unsafe { arguments::endpoint(endpoint) };
        let attachment = Attachment::open(&endpoint, channel, start(from)?)?;
        ShmdReader::hand_out(Source::of(attachment), place)
    })())
}

/// # Safety
/// As for [`shmd_reader_attach`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_follow(
    endpoint: *const ShmdEndpoint,
    channel: *const c_char,
    from: c_int,
    reader: *mut *mut ShmdReader,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, channel) = unsafe { (out(reader, "reader")?, arguments::text(channel, "channel's name")?) };
        // SAFETY: promised by the caller.
        let endpoint = unsafe { arguments::endpoint(endpoint) };
        let follower = Follower::new(endpoint, channel, start(from)?)?;
        ShmdReader::hand_out(Source::following(follower), place)
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_free(reader: *mut ShmdReader) {
    // SAFETY: promised by the caller.
    if unsafe { reader.as_ref() }.is_some_and(|reader| reader.guard.is_ours()) {
        // SAFETY: it was made from a box. In a child, the reader's page is still the parent's, and is left alone.
        drop(unsafe { Box::from_raw(reader) });
    }
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `message` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_recv(
    reader: *mut ShmdReader,
    message: *mut ShmdMessage,
    timeout_ns: i64,
) -> c_int {
    // SAFETY: promised by the caller.
    if unsafe { ShmdReader::at_hand(reader, message) } {
        return OK;
    }
    // SAFETY: promised by the caller.
    unsafe { receive_slowly(reader, message, true, timeout_ns) }
}

/// # Safety
/// As for [`shmd_reader_recv`].
#[cold]
#[inline(never)]
unsafe fn receive_slowly(reader: *mut ShmdReader, message: *mut ShmdMessage, wait: bool, timeout_ns: i64) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, to) = unsafe { (ShmdReader::idle(reader)?, out(message, "message")?) };
        reader.receive(to, wait, if wait { arguments::timeout(timeout_ns) } else { None })
    })())
}

/// # Safety
/// As for [`shmd_reader_recv`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_try_recv(reader: *mut ShmdReader, message: *mut ShmdMessage) -> c_int {
    // SAFETY: promised by the caller.
    if unsafe { ShmdReader::at_hand(reader, message) } {
        return OK;
    }
    // SAFETY: promised by the caller.
    unsafe { receive_slowly(reader, message, false, 0) }
}

/// # Safety
/// As for [`shmd_reader_recv`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_finish(reader: *mut ShmdReader, message: *mut ShmdMessage) -> c_int {
    // SAFETY: promised by the caller.
    if let (Some(reader), Some(message)) = unsafe { (reader.as_mut(), message.as_mut()) }
        && message.generation == reader.generation
        && reader.guard.is_ours()
        && matches!(reader.held, Held::Message(_))
        && let Held::Message(held) = std::mem::replace(&mut reader.held, Held::Nothing)
    {
        return match held.finish_settled() {
            None => {
                message.end();
                OK
            }
            Some(held) => finish_unsettled(reader, message, held),
        };
    }
    // SAFETY: promised by the caller.
    unsafe { finish_slowly(reader, message) }
}

/// Goes on with a message that needs a closer look. Apart, so that the usual case has no registers to save for it.
#[cold]
#[inline(never)]
fn finish_unsettled(reader: &mut ShmdReader, message: &mut ShmdMessage, held: Message<'static>) -> c_int {
    reader.held = Held::Message(held);
    // SAFETY: two references, which nobody else uses.
    unsafe { finish_slowly(reader, message) }
}

/// # Safety
/// As for [`shmd_reader_recv`].
#[cold]
#[inline(never)]
unsafe fn finish_slowly(reader: *mut ShmdReader, message: *mut ShmdMessage) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, message) = unsafe { (ShmdReader::usable(reader)?, out(message, "message")?) };
        if message.generation != reader.generation {
            return Err(reader.is_stale());
        }
        let outcome = reader.end_other();
        if reader.held.is_nothing() {
            message.end();
        }
        outcome
    })())
}
