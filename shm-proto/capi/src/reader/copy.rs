//! Receiving by copying.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::time::Duration;

use shm_proto::Received;

use super::ShmdReader;
use crate::arguments::{self, null};
use crate::failure::Failure;
use crate::held::ShmdMessage;
use crate::result::{ERR_TOO_LARGE, OK, finish};
use crate::source::{Next, timed_out};

impl ShmdReader {
    fn receive_copy(&mut self, into: &mut [u8], timeout: Option<Duration>) -> Result<(Received, usize), Failure> {
        let deadline_ns = shm_proto::internal::os::clock::deadline(timeout);
        loop {
            let now_ns = shm_proto::internal::os::clock::monotonic_ns();
            let left = timeout.map(|_| Duration::from_nanos(deadline_ns.saturating_sub(now_ns)));
            match self.next(true, left)?.ok_or_else(|| timed_out(timeout))? {
                Next::Message(message) if message.len() > into.len() => {
                    let failure = too_large(message.len(), into.len());
                    // It is not passed, and stays the next message.
                    std::mem::forget(message);
                    return Err(failure);
                }
                Next::Message(message) => {
                    let (seq, published_ns, len) = (message.seq(), message.published_ns(), message.copy_to(into));
                    let lost = message.lost_before();
                    match message.finish().map_err(|error| self.went_wrong(error)) {
                        Ok(()) => {
                            let lost_before = lost + std::mem::take(&mut self.lost_untold);
                            return Ok((Received { seq, lost_before, published_ns }, len));
                        }
                        // Waiting for another one may end otherwise.
                        Err(failure) if failure.is_about_one_message() => self.lost_untold += lost,
                        Err(failure) => return Err(failure),
                    }
                }
                Next::Copy(seq) if self.buffer.len() > into.len() => {
                    self.kept = Some(seq);
                    return Err(too_large(self.buffer.len(), into.len()));
                }
                Next::Copy(seq) => {
                    into[..self.buffer.len()].copy_from_slice(&self.buffer);
                    self.acknowledge();
                    return Ok((Received { seq, lost_before: 0, published_ns: None }, self.buffer.len()));
                }
            }
        }
    }
}

#[cold]
fn too_large(len: usize, capacity: usize) -> Failure {
    let message = format!("the message has {len} bytes, and the buffer {capacity}; receive it with a larger one");
    Failure::new(ERR_TOO_LARGE, message).with_number(len as u64)
}

/// # Safety
/// As for [`shmd_reader_recv`](super::shmd_reader_recv); `buffer` has `capacity` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_recv_copy(
    reader: *mut ShmdReader,
    buffer: *mut u8,
    capacity: usize,
    message: *mut ShmdMessage,
    timeout_ns: i64,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let reader = unsafe { ShmdReader::idle(reader)? };
        let into: &mut [u8] = match capacity {
            0 => &mut [],
            _ if buffer.is_null() => return Err(null("buffer")),
            _ if capacity > isize::MAX as usize => {
                return Err(Failure::invalid(format!("no buffer has {capacity} bytes")));
            }
            // SAFETY: promised by the caller.
            _ => unsafe { std::slice::from_raw_parts_mut(buffer, capacity) },
        };
        let (received, len) = reader.receive_copy(into, arguments::timeout(timeout_ns))?;
        // SAFETY: promised by the caller.
        if let Some(message) = unsafe { message.as_mut() } {
            message.end();
            (message.len, message.seq, message.lost_before) = (len, received.seq, received.lost_before);
            message.published_ns = received.published_ns.unwrap_or(0);
        }
        Ok(OK)
    })())
}
