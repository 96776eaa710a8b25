//! Where the thread of a handoff notes how far it is: among the notes in the feed's segment, so that both come and go together.

use std::os::fd::AsFd;
use std::sync::PoisonError;

use shm_proto::SystemError;
use shm_proto::internal::handoff::{Counters, Entry, Journal, Stage};
use shm_proto::internal::ring::{HandoffNote, note_handoff, noted_handoff};

use crate::channel::ring::{NoteFile, Ring};

/// Numbers of the stages. The first bytes of a message that is on offer are in the upper half of the word.
const OFFERED: u64 = 1;
const ENDED: u64 = 2;

/// The journal of a handoff.
#[derive(Debug)]
pub(super) struct FeedNotes(NoteFile);

impl FeedNotes {
    /// The journal, and what a dead daemon has noted there. A number that no message of the feed has is not believed: a program that
    /// was lent the writer role may have written it.
    ///
    /// # Errors
    /// If no descriptors are left, or if the feed cannot be read.
    pub(super) fn of(feed: &mut Ring) -> Result<(Self, Entry), SystemError> {
        let note = noted_handoff(feed.segments().current().file())?;
        let messages = feed.snapshot()?.tail.seq;
        let entry = if note.number <= messages { entry(note) } else { Entry::default() };
        Ok((Self(feed.note_file()?), entry))
    }
}

impl Journal for FeedNotes {
    fn note(&mut self, entry: &Entry) -> Result<(), SystemError> {
        // While the channel moves to another segment, this waits.
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        note_handoff(file.as_fd(), note(entry))
    }
}

fn note(entry: &Entry) -> HandoffNote {
    let Counters { messages, bytes, dropped, resizes, .. } = entry.counters;
    let stage = match entry.stage {
        Stage::None => 0,
        Stage::Offered(first) => OFFERED | u64::from(u32::from_ne_bytes(first)) << 32,
        Stage::Ended => ENDED,
    };
    let shrink_to = entry.shrink_to.unwrap_or(0);
    HandoffNote { number: entry.number, stage, messages, bytes, dropped, resizes, shrink_to }
}

fn entry(note: HandoffNote) -> Entry {
    let HandoffNote { number, stage, messages, bytes, dropped, resizes, shrink_to } = note;
    let stage = match stage & u64::from(u32::MAX) {
        OFFERED => Stage::Offered(((stage >> 32) as u32).to_ne_bytes()),
        ENDED => Stage::Ended,
        _ => Stage::None,
    };
    let counters = Counters { messages, bytes, dropped, resizes, ..Counters::default() };
    Entry { number, stage, counters, shrink_to: (shrink_to != 0).then_some(shrink_to) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again() {
        let counters = Counters { messages: 5, bytes: 55, dropped: 2, resizes: 3, ..Counters::default() };
        for stage in [Stage::None, Stage::Offered(*b"\0\0\0\0"), Stage::Offered(*b"abc\xff"), Stage::Ended] {
            for shrink_to in [None, Some(4096)] {
                let noted = Entry { number: 7, stage, counters, shrink_to };
                assert_eq!(entry(note(&noted)), noted);
            }
        }
        assert_eq!(entry(HandoffNote { stage: 77, ..HandoffNote::default() }), Entry::default());
    }
}
