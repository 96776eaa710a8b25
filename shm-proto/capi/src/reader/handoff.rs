//! What becomes of a handoff's message that this reader has taken: it is acknowledged, or left to another reader.
#![allow(unsafe_code)]

use std::ffi::c_int;

use shm_proto::{Attachment, HandoffReader};

use super::ShmdReader;
use crate::arguments::out;
use crate::failure::Failure;
use crate::held::{Held, ShmdMessage};
use crate::result::{ERR_UNSUPPORTED, OK, finish};
use crate::source::Source;

impl ShmdReader {
    /// The reader of the handoff whose message is in the buffer.
    fn handoff(&mut self) -> Option<&mut HandoffReader> {
        match &mut self.source {
            Source::Handoff(reader) => Some(reader),
            Source::Follower(follower, _) => {
                // SAFETY: nothing of the follower is lent: the message is in the buffer.
                match unsafe { follower.borrow() }.attachment() {
                    Ok(Some(Attachment::Handoff(reader))) => Some(reader),
                    _ => None,
                }
            }
            Source::Ring(_) => None,
        }
    }

    /// Tells the writer of a handoff that the message was read.
    pub(super) fn acknowledge(&mut self) {
        if let Some(reader) = self.handoff() {
            reader.acknowledge();
        }
    }

    fn give_back(&mut self) {
        if let Some(reader) = self.handoff() {
            reader.give_back();
        }
    }
}

impl Drop for ShmdReader {
    fn drop(&mut self) {
        // The program has never had this message, so it must not count as read.
        if self.kept.is_some() {
            self.give_back();
        }
    }
}

/// # Safety
/// `reader` is NULL or a handle that was not freed, and that no other thread uses; `message` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_reader_give_back(reader: *mut ShmdReader, message: *mut ShmdMessage) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (reader, message) = unsafe { (ShmdReader::usable(reader)?, out(message, "message")?) };
        match reader.held {
            _ if message.generation != reader.generation => return Err(reader.is_stale()),
            Held::Copy => {}
            Held::Nothing => return Err(reader.is_stale()),
            Held::Message(_) | Held::Many(_) => {
                let message = "each reader of a ring receives every message, so that none can be left to another reader; call \
                               shmd_reader_finish()";
                return Err(Failure::new(ERR_UNSUPPORTED, message));
            }
        }
        reader.held = Held::Nothing;
        reader.give_back();
        message.end();
        Ok(OK)
    })())
}
