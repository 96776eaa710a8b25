//! What a writer notes for the writer that comes after its death, and how that one finds out what became of the last message.
//!
//! The protocol has no numbers, and a ready flag of 0 may mean that a message was read or that it was never there. So a message
//! that is noted is placed in these steps, and each of them leaves one answer to a writer that comes later:
//!
//! | step, after which the writer dies | what was noted | flag | first bytes | the next writer |
//! |---|---|---|---|---|
//! | the rest of the message is copied | the message before has ended | 0 | any | offers the message |
//! | the complement of its first bytes is stored | the same | 0 | complement | offers the message |
//! | the message is noted, with its first bytes | message | 0 | complement | offers the message |
//! | flag and first bytes are stored in one piece | message | 1 | as noted | waits for a reader |
//! | a reader takes the message | message | 0 | as noted | waits for `done`, and after `ack_timeout` offers it again |
//! | a reader posts `done`, which stays | message | 0 | as noted | sees `done` |
//! | the end is noted | the message has ended | 0 | as noted | offers the next message |
//!
//! The mutex is held from the first step to the fourth. A [nudge](crate::os::sem::Semaphore::nudge) of this process is told from a
//! post of `done`.

use std::fmt::Debug;
use std::sync::atomic::Ordering;

use super::{Offer, Writer};
use crate::error::SystemError;
use crate::handoff::error::Result;
use crate::handoff::layout::{FIRST, HEADER_SIZE};
use crate::handoff::writer::settings::{Counters, Origin};

/// How far a writer is with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// No message was noted.
    #[default]
    None,
    /// The message is about to be placed, or is on offer. These are its first bytes; bytes that it does not have are 0.
    Offered([u8; FIRST]),
    /// The message was acknowledged or dropped.
    Ended,
}

/// What is noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The number that the writer's user has for the message.
    pub number: u64,
    /// How far the writer is with it.
    pub stage: Stage,
    /// What has happened so far.
    pub counters: Counters,
    /// A smaller length of the segment that waits for the end of the message.
    pub shrink_to: Option<u64>,
}

impl Entry {
    /// The number of the first message that was not handed over, when the writer that has found this entry has taken up what was
    /// `left`.
    #[must_use]
    pub fn next(&self, left: TakenUp) -> u64 {
        match (self.stage, left) {
            (Stage::None, _) => 0,
            (Stage::Ended, _) | (Stage::Offered(_), TakenUp::Noted) => self.number + 1,
            (Stage::Offered(_), TakenUp::Nothing | TakenUp::Other) => self.number,
        }
    }
}

/// Keeps the newest entry where it outlives this process.
pub trait Journal: Debug + Send {
    /// Replaces the entry by this one, all of it or nothing.
    ///
    /// # Errors
    /// If it cannot be written. The writer then does not go on with the message.
    fn note(&mut self, entry: &Entry) -> Result<(), SystemError>;
}

impl Writer {
    /// Notes from now on how far the writer is, and goes on counting from what the writer before it has noted.
    pub fn keep_journal(&mut self, journal: Box<dyn Journal>, entry: Entry) {
        self.counters = entry.counters;
        (self.journal, self.entry) = (Some(journal), entry);
    }

    /// What was noted last.
    #[must_use]
    pub fn noted(&self) -> Entry {
        self.entry
    }

    /// Notes how far the writer is with the message.
    pub(super) fn note(&mut self, stage: Stage) -> Result<(), SystemError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let entry = Entry { stage, counters: self.counters, shrink_to: self.shrink_to, ..self.entry };
        journal.note(&entry)?;
        self.entry = entry;
        Ok(())
    }

    /// Notes that the message is over, if it is one of those that are noted.
    pub(super) fn note_end(&mut self) -> Result<(), SystemError> {
        self.note(match self.entry.stage {
            Stage::Offered(_) => Stage::Ended,
            stage => stage,
        })
    }

    /// Goes on with what the writer before this one had on offer when it died.
    ///
    /// # Errors
    /// [`Locked`](crate::handoff::HandoffError::Locked); the next call tries again.
    pub fn take_up(&mut self) -> Result<TakenUp> {
        if self.offer.is_some() || !matches!(self.origin, Origin::Adopted { .. }) {
            return Ok(TakenUp::Nothing);
        }
        let (is_ready, first, len, told) = self.locked(|objects| {
            let header = objects.segment.header();
            let first = header.first.load(Ordering::Relaxed).to_ne_bytes();
            let (len, told) = (header.data_size.load(Ordering::Relaxed), header.capacity.load(Ordering::Relaxed));
            (header.ready_flag.load(Ordering::Acquire) != 0, first, len, told)
        })?;
        let is_noted = self.entry.stage == Stage::Offered(first);
        let fits = len <= self.len - HEADER_SIZE;
        if !fits || !(is_ready || is_noted) {
            self.locked(|objects| objects.segment.header().ready_flag.store(0, Ordering::Relaxed))?;
            // Whatever was posted belongs to a message that is over.
            self.objects.avail.take_all();
            self.objects.done.take_all();
            self.origin = Origin::Adopted { pending: None };
            return Ok(TakenUp::Nothing);
        }
        self.origin = Origin::Adopted { pending: None };
        // A reader that has taken the message may have seen a shorter file, which has grown since, and maps no more of it.
        let seen = if is_ready { self.len } else { told };
        let is_taken = !is_ready;
        self.offer = Some(Offer { len, seen, is_taken, deadline: self.deadline(is_taken) });
        if is_ready && self.objects.avail.value() == 0 {
            self.counters.offered_again += 1;
            self.objects.avail.post();
        } else {
            // The writer before may have been killed before it woke anybody, and a reader in C sleeps without a time limit.
            self.objects.avail.wake_all();
        }
        if is_noted {
            return Ok(TakenUp::Noted);
        }
        if let Stage::Offered(_) = self.entry.stage {
            // That one was not placed.
            let before = self.entry.number.checked_sub(1);
            (self.entry.stage, self.entry.number) = before.map_or((Stage::None, 0), |before| (Stage::Ended, before));
        }
        Ok(TakenUp::Other)
    }
}

/// What is on offer again after [`Writer::take_up`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenUp {
    /// No message.
    Nothing,
    /// The message that was noted.
    Noted,
    /// A message that nobody has noted.
    Other,
}
