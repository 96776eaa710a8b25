//! Several messages at once.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::time::Duration;

use shm_proto::{Attachment, Reader};

use super::ShmdReader;
use crate::arguments::{self, null, out, put};
use crate::failure::Failure;
use crate::held::{Held, ShmdMessage};
use crate::result::{OK, failed, finish};
use crate::source::{Next, Source, timed_out};

/// A reader whose program holds more messages than this gives their space back too late.
const MOST: usize = 64;

impl ShmdReader {
    /// The ring's reader. Nothing may be open.
    #[inline(always)]
    fn ring(&mut self) -> Option<&'static mut Reader> {
        match &self.source {
            // SAFETY: nothing is open, and `held` is dropped before `source`.
            Source::Ring(reader) => Some(unsafe { reader.borrow() }),
            Source::Follower(follower, _) => {
                // SAFETY: as above.
                let follower = unsafe { follower.borrow() };
                if !follower.is_attached() {
                    return None;
                }
                match follower.attachment() {
                    Ok(Some(Attachment::Ring(reader))) => Some(reader),
                    _ => None,
                }
            }
            Source::Handoff(_) => None,
        }
    }

    /// Opens what is at hand, and returns how many messages that is.
    ///
    /// # Safety
    /// `to` has room for `most` messages.
    #[inline(always)]
    unsafe fn lend_many(&mut self, to: *mut ShmdMessage, most: usize) -> usize {
        let generation = self.generation + 1;
        let mut count = 0;
        let Some(ring) = self.ring() else { return 0 };
        let views = ring.lend_many(most.min(MOST), |data, len, seq, lost_before| {
            // SAFETY: `lend_many` calls this for no more than `most` messages; the caller promises room for them.
            let message = unsafe { to.add(count) };
            // SAFETY: as above. What was there before is not read.
            unsafe {
                (&raw mut (*message).data).write(data);
                (&raw mut (*message).len).write(len);
                (&raw mut (*message).seq).write(seq);
                (&raw mut (*message).lost_before).write(lost_before);
                (&raw mut (*message).generation).write(generation);
                // With publish times, messages are lent one by one.
                (&raw mut (*message).published_ns).write(0);
            }
            count += 1;
        });
        if let Some(views) = views {
            self.generation = generation;
            self.held = Held::Many(views);
        }
        count
    }

    /// Waits for a message, and opens what there is then.
    ///
    /// # Safety
    /// As for [`lend_many`](Self::lend_many), and `most` is not 0.
    #[cold]
    #[inline(never)]
    unsafe fn await_many(
        &mut self,
        to: *mut ShmdMessage,
        most: usize,
        timeout: Option<Duration>,
    ) -> Result<usize, Failure> {
        match self.next(true, timeout)?.ok_or_else(|| timed_out(timeout))? {
            Next::Message(message) => {
                // SAFETY: promised by the caller.
                let to = unsafe { &mut *to };
                self.lend(message, to);
                // It is not passed, and is the first of those that are at hand, if they can be lent together.
                let Held::Message(message) = std::mem::replace(&mut self.held, Held::Nothing) else { return Ok(0) };
                std::mem::forget(message);
                // SAFETY: promised by the caller; nothing borrows the reader any more.
                let count = unsafe { self.lend_many(to, most) };
                if count > 0 {
                    return Ok(count);
                }
                match self.next(true, timeout)?.ok_or_else(|| timed_out(timeout))? {
                    Next::Message(message) => self.lend(message, to),
                    Next::Copy(seq) => self.lend_copy(seq, to),
                }
            }
            // SAFETY: promised by the caller.
            Next::Copy(seq) => self.lend_copy(seq, unsafe { &mut *to }),
        }
        Ok(1)
    }

    /// Ends what is open, of which the caller has `count` messages. How many are valid, and why the next one is not.
    #[inline(always)]
    fn end_many(&mut self, count: usize) -> (usize, Result<(), Failure>) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Many(views) if views.count() == count => match views.finish() {
                (valid, Ok(())) => (valid, Ok(())),
                (valid, Err(error)) => (valid, Err(self.went_wrong(error))),
            },
            Held::Many(views) => {
                let lent = views.count();
                self.held = Held::Many(views);
                (0, Err(Failure::state(format!("count is {count}, and the reader has lent {lent} messages"))))
            }
            held if count == 1 => {
                self.held = held;
                let outcome = self.end_other().map(|_| ());
                (usize::from(outcome.is_ok()), outcome)
            }
            held => {
                self.held = held;
                (0, Err(Failure::state(format!("count is {count}, and the reader has lent no more than one message"))))
            }
        }
    }
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `messages` is NULL or has room for `most`
/// messages, and `count` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_recv_many(
    reader: *mut ShmdReader,
    messages: *mut ShmdMessage,
    most: usize,
    count: *mut usize,
    timeout_ns: i64,
) -> c_int {
    // SAFETY: promised by the caller.
    if let (Some(reader), Some(count)) = unsafe { (reader.as_mut(), count.as_mut()) }
        && reader.guard.is_ours()
        && reader.held.is_nothing()
        && !messages.is_null()
    {
        // SAFETY: promised by the caller.
        let lent = unsafe { reader.lend_many(messages, most) };
        if lent > 0 {
            *count = lent;
            return OK;
        }
    }
    // SAFETY: promised by the caller.
    unsafe { receive_many_slowly(reader, messages, most, count, timeout_ns) }
}

/// # Safety
/// As for [`shmd_reader_recv_many`].
#[cold]
#[inline(never)]
unsafe fn receive_many_slowly(
    reader: *mut ShmdReader,
    messages: *mut ShmdMessage,
    most: usize,
    count: *mut usize,
    timeout_ns: i64,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, count) = unsafe { (ShmdReader::idle(reader)?, out(count, "count")?) };
        if messages.is_null() {
            return Err(null("messages"));
        }
        if most == 0 {
            return Err(Failure::invalid("most is 0, and has to be 1 or more"));
        }
        // SAFETY: promised by the caller.
        *count = unsafe { reader.await_many(messages, most, arguments::timeout(timeout_ns))? };
        Ok(OK)
    })())
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `messages` is NULL or has `count` messages, and
/// `valid` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_finish_many(
    reader: *mut ShmdReader,
    messages: *mut ShmdMessage,
    count: usize,
    valid: *mut usize,
) -> c_int {
    // SAFETY: promised by the caller.
    let reader = match unsafe { ShmdReader::usable(reader) } {
        Ok(reader) if !messages.is_null() && count > 0 => reader,
        Ok(_) if messages.is_null() => return failed(&null("messages")),
        Ok(_) => return failed(&Failure::invalid("count is 0; pass what shmd_reader_recv_many() has stored")),
        Err(failure) => return failed(&failure),
    };
    // SAFETY: promised by the caller.
    if unsafe { (*messages).generation } != reader.generation {
        return failed(&reader.is_stale());
    }
    let (good, outcome) = reader.end_many(count);
    if reader.held.is_nothing() {
        for n in 0..count {
            // SAFETY: promised by the caller.
            unsafe { (*messages.add(n)).end() };
        }
        // SAFETY: promised by the caller.
        unsafe { put(valid, good) };
    }
    finish(outcome.map(|()| OK))
}
