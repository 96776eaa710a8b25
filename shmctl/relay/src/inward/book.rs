//! Which messages of the stream are in the channel: pure bookkeeping.
//!
//! Nothing is written down for each message, because the channel counts them itself: message `seq + k` of the source's instance is
//! message `ring_seq + k` of the channel, for as long as messages come without a gap and nobody else publishes to the channel. This
//! relation is the [`Mark`]. It is stored with the consumer, before the first message that it holds for is published, and again
//! whenever it changes: at a gap, with another instance of the source, with a new segment of the channel. Whoever starts again reads
//! the mark, asks the channel how many messages it has, and so knows the next message to publish, wherever the relay before was killed.

use std::fmt;
use std::str::FromStr;

/// The first word of a mark, and its version.
pub(super) const WORDS: [&str; 2] = ["shmd-relay", "1"];

/// Every message of the stream before `stream_seq` is in the channel. From there on, message `seq` of `lineage` and what follows is
/// message `ring_seq` of the channel's instance `ring` and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) stream_seq: u64,
    pub(super) lineage: u64,
    pub(super) seq: u64,
    pub(super) ring: u64,
    pub(super) ring_seq: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [name, version] = WORDS;
        let Mark { stream_seq, lineage, seq, ring, ring_seq } = self;
        write!(f, "{name} {version} {stream_seq} {lineage:016x} {seq} {ring:016x} {ring_seq}")
    }
}

/// Text that is no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMark;

impl FromStr for Mark {
    type Err = NoMark;

    fn from_str(text: &str) -> Result<Self, NoMark> {
        let words: Vec<_> = text.split(' ').collect();
        let [name, version, stream_seq, lineage, seq, ring, ring_seq] = words[..] else { return Err(NoMark) };
        if [name, version] != WORDS {
            return Err(NoMark);
        }
        let decimal = |word: &str| word.parse().map_err(|_| NoMark);
        let hexadecimal = |word: &str| u64::from_str_radix(word, 16).map_err(|_| NoMark);
        Ok(Mark {
            stream_seq: decimal(stream_seq)?,
            lineage: hexadecimal(lineage)?,
            seq: decimal(seq)?,
            ring: hexadecimal(ring)?,
            ring_seq: decimal(ring_seq)?,
        })
    }
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is in the channel already.
    Skip,
    Publish,
    /// Store this mark, then publish. `missing`: messages before it that the stream does not have.
    Mark {
        mark: Mark,
        missing: u64,
    },
}

/// What follows from an attachment to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// Nothing was published yet.
    Fresh,
    /// The channel is the one of before.
    GoesOn,
    /// The channel has another segment, which begins anew.
    Anew,
    /// The channel has other messages than this relay has published.
    Foreign,
}

/// The channel as it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ring {
    lineage: u64,
    /// Number of the next message that is published.
    next: u64,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    mark: Option<Mark>,
    /// The next message of the mark's instance, if it is known.
    next: Option<u64>,
    ring: Option<Ring>,
    /// The mark holds from here on.
    holds: bool,
}

impl Book {
    /// With the mark that was stored last.
    pub(super) fn new(mark: Option<Mark>) -> Self {
        Book { mark, ..Book::default() }
    }

    /// Messages of the stream before this one are in the channel.
    pub(super) fn first(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.stream_seq)
    }

    /// The instance whose messages are counted, and the next of them.
    pub(super) fn next(&self) -> Option<(u64, u64)> {
        Some((self.mark?.lineage, self.next?))
    }

    /// The channel is attached, and has `messages` messages. `in_doubt`: the last publish ended without saying whether the message is
    /// in the channel.
    pub(super) fn attached(&mut self, ring: u64, messages: u64, in_doubt: bool) -> Attached {
        let before = self.ring.replace(Ring { lineage: ring, next: messages });
        let Some(mark) = self.mark else { return Attached::Fresh };
        if let (Some(next), Some(before)) = (self.next, before) {
            if before.lineage != ring {
                self.holds = false;
                return Attached::Anew;
            }
            let came = messages.checked_sub(before.next);
            if came == Some(0) {
                return Attached::GoesOn;
            }
            if came == Some(1) && in_doubt {
                self.next = Some(next + 1);
                return Attached::GoesOn;
            }
            self.holds = false;
            return Attached::Foreign;
        }
        if mark.ring != ring {
            return Attached::Anew;
        }
        match messages.checked_sub(mark.ring_seq) {
            Some(published) => {
                self.next = mark.seq.checked_add(published);
                self.holds = self.next.is_some();
                Attached::GoesOn
            }
            None => Attached::Foreign,
        }
    }

    /// The stream has no message of the instance from `end` on. Returns false if the channel has more than that, so that another
    /// program must have published to it; then nothing is known.
    pub(super) fn is_plausible(&mut self, lineage: u64, end: u64) -> bool {
        let is_beyond = self.next().is_some_and(|(counted, next)| counted == lineage && next > end);
        if is_beyond {
            self.next = None;
            self.holds = false;
        }
        !is_beyond
    }

    /// What to do with a message, which begins in message `stream_seq` of the stream.
    pub(super) fn judge(&self, stream_seq: u64, lineage: u64, seq: u64) -> Step {
        let ring = self.ring.unwrap_or(Ring { lineage: 0, next: 0 });
        let next = self.next().filter(|(counted, _)| *counted == lineage).map(|(_, next)| next);
        match next {
            Some(next) if seq < next => Step::Skip,
            Some(next) if seq == next && self.holds => Step::Publish,
            next => {
                let mark = Mark { stream_seq, lineage, seq, ring: ring.lineage, ring_seq: ring.next };
                Step::Mark { mark, missing: next.map_or(0, |next| seq - next) }
            }
        }
    }

    /// The stored mark is lost, or the stream has other numbers: the next message is marked.
    pub(super) fn must_mark(&mut self) {
        self.holds = false;
    }

    /// The mark is stored.
    pub(super) fn marked(&mut self, mark: Mark) {
        self.mark = Some(mark);
        self.next = Some(mark.seq);
        self.holds = true;
    }

    /// The message that was judged is message `ring_seq` of the channel.
    pub(super) fn published(&mut self, ring_seq: u64) {
        self.next = self.next.map(|next| next + 1);
        if let Some(ring) = &mut self.ring {
            self.holds &= ring.next == ring_seq;
            ring.next = ring_seq + 1;
        }
    }

    /// The channel's policy has dropped the message that was judged.
    pub(super) fn dropped(&mut self) {
        self.next = self.next.map(|next| next + 1);
        self.holds = false;
    }
}

#[cfg(test)]
mod tests;
