//! Beginning and ending attachments, as the [state](super::state) says.

use std::os::fd::AsFd;

use super::Follower;
use super::meaning::{Meaning, meaning};
use super::notice::Notice;
use super::state::{Action, Event};
use crate::client::{Attached as HandoffReader, Attachment, Error, Result};
use crate::os::clock::{self, monotonic_ns};
use crate::ring::Reader;

impl Follower {
    /// Decides about an error of a message's [`finish`](crate::Message::finish), or of the reader of a handoff channel.
    /// `Ok`: go on receiving. If the attachment has ended, the follower leaves it and attaches again after a pause.
    ///
    /// # Errors
    /// The error itself, if attaching again does not help.
    pub fn go_on_after(&mut self, error: impl Into<Error>) -> Result<()> {
        self.judge(error.into())
    }

    fn judge(&mut self, error: Error) -> Result<()> {
        let ring = match &mut self.attachment {
            Some(Attachment::Ring(reader)) => Some(reader),
            _ => None,
        };
        let event = match (meaning(&error), ring) {
            (Meaning::Message, _) => return Ok(()),
            // Without a daemon nobody replaces the segment.
            (Meaning::Broken, Some(reader)) if !reader.is_disconnected() => {
                Event::Broken { instance: reader.geometry().instance, seq: reader.seq() }
            }
            (Meaning::Broken, _) => return Err(error),
            (Meaning::Ended { back, retry_after }, ring) => {
                Event::Ended { back, retry_after, next: ring.map(|reader| reader.next_to_receive()) }
            }
        };
        match self.step(event) {
            Action::Begin | Action::GoOn { .. } => {}
            Action::Stay => self.notice = Some(Notice::Broken { why: error }),
            Action::Pause { pause, tell } => {
                self.leave();
                self.due_ns = clock::after(pause);
                if tell {
                    self.notice = Some(Notice::Waiting { why: error, pause });
                }
            }
            Action::Fail => return Err(error),
        }
        Ok(())
    }

    /// Whether it is time to attach.
    #[inline]
    pub(in crate::client) fn is_due(&self) -> bool {
        self.attachment.is_none() && monotonic_ns() >= self.due_ns
    }

    /// Whether there is an attachment now.
    #[inline]
    pub(in crate::client) fn attach_if_due(&mut self) -> Result<bool> {
        if self.is_due() {
            self.attach()?;
        }
        Ok(self.attachment.is_some())
    }

    #[cold]
    fn attach(&mut self) -> Result<()> {
        let mut attachment = match Attachment::open(&self.endpoint, self.channel.as_deref(), self.state.start()) {
            Ok(attachment) => attachment,
            Err(error) => return self.go_on_after(error),
        };
        match &mut attachment {
            Attachment::Handoff(reader) => {
                self.step(Event::Handoff);
                log::info!("attached to channel {}, handed over through {}", reader.facts().channel, reader.names());
            }
            Attachment::Ring(reader) => {
                reader.set_wait_strategy(self.strategy);
                reader.set_status(&self.status);
                let (is_first, channel) = (!self.state.has_place(), reader.geometry().channel.clone());
                match self.step(Event::Ring { lineage: reader.geometry().lineage, seq: reader.seq() }) {
                    Action::GoOn { next } => {
                        reader.go_on_at(next);
                        log::info!("attached again to channel {channel}, going on with message {next}");
                    }
                    _ if is_first => log::info!("attached to channel {channel}"),
                    _ => log::info!("attached to the new segment of channel {channel}"),
                }
            }
        }
        self.wait.end_pause()?;
        self.attachment = Some(attachment);
        Ok(())
    }

    fn leave(&mut self) {
        let watched = match &self.attachment {
            Some(Attachment::Ring(reader)) => Some(reader.as_fd()),
            Some(Attachment::Handoff(reader)) => reader.descriptor_in_use(),
            None => None,
        };
        if let Some(watched) = watched {
            self.wait.forget(watched);
        }
        self.attachment = None;
    }

    fn step(&mut self, event: Event) -> Action {
        let (state, action) = self.state.after(event);
        self.state = state;
        action
    }

    #[inline]
    pub(in crate::client) fn ring(&mut self) -> Result<&mut Reader> {
        match &mut self.attachment {
            Some(Attachment::Ring(reader)) => Ok(reader),
            Some(Attachment::Handoff(reader)) => Err(is_handoff(reader)),
            None => unreachable!("a follower looks for a message without an attachment"),
        }
    }
}

#[cold]
fn is_handoff(reader: &HandoffReader) -> Error {
    Error::IsHandoff { channel: reader.facts().channel.to_string(), objects: reader.names().to_string() }
}
