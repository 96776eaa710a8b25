//! The lines that a writer has still to be told: (state, event) -> (state, lines). Pure: no descriptor, no clock, no
//! memory.
//!
//! Only a limited number of lines is in transit at a time, however long the writer does not take them. The number of
//! readers bounds what waits here: a reader that comes and goes in the meantime is not mentioned, and of the sizes and
//! policies only those wait that still count.

use std::collections::BTreeSet;

use shm_proto::internal::ring::link::{MOST_UNTAKEN, ToWriter};

/// The lines to one writer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    revoked: Option<ToWriter>,
    left: BTreeSet<u32>,
    joined: BTreeSet<u32>,
    /// Each kind at most once, in the order in which they take effect.
    sizes: Vec<ToWriter>,
    policy: Option<ToWriter>,
    sent: u64,
    taken: u64,
    /// Readers that the writer will be told of, but that have not come yet.
    missing: u64,
    /// The writer knows whoever may still come.
    knows_all: bool,
}

impl Outbox {
    /// Adds a line.
    pub(crate) fn put(&mut self, line: ToWriter) {
        match line {
            ToWriter::ReaderJoined { reader } => drop(self.joined.insert(reader)),
            ToWriter::ReaderLeft { reader } if self.joined.remove(&reader) => {}
            ToWriter::ReaderLeft { reader } => drop(self.left.insert(reader)),
            ToWriter::Grown { capacity, done } => {
                // A growth cancels a shrink, and answers a request to grow. If a step was the last one of a growth,
                // that stays so.
                let done = done || self.sizes.iter().any(|line| matches!(line, ToWriter::Grown { done: true, .. }));
                self.sizes.clear();
                self.sizes.push(ToWriter::Grown { capacity, done });
            }
            ToWriter::Shrink { .. } => {
                self.sizes.retain(|line| !matches!(line, ToWriter::Shrink { .. }));
                self.sizes.push(line);
            }
            ToWriter::NotGrown { .. } => {
                self.sizes.retain(|line| !matches!(line, ToWriter::NotGrown { .. }));
                self.sizes.push(line);
            }
            ToWriter::Policy { .. } => self.policy = Some(line),
            ToWriter::Revoked { .. } => self.revoked = Some(line),
            // Only read, never sent.
            ToWriter::Resumed | ToWriter::Unknown => {}
        }
    }

    /// The next line to send, if the writer has taken enough of the earlier lines. Readers come before sizes, because
    /// what a shrink does depends on the readers.
    pub(crate) fn next(&mut self) -> Option<ToWriter> {
        if self.sent - self.taken >= MOST_UNTAKEN {
            return None;
        }
        let gone = |reader| ToWriter::ReaderLeft { reader };
        let come = |reader| ToWriter::ReaderJoined { reader };
        let line = self.revoked.take();
        let line = line.or_else(|| self.left.pop_first().map(gone)).or_else(|| self.joined.pop_first().map(come));
        let line = line.or_else(|| (!self.sizes.is_empty()).then(|| self.sizes.remove(0)));
        let line = line.or_else(|| self.policy.take())?;
        self.sent += 1;
        Some(line)
    }

    /// Returns the line from [`next`](Self::next), which could not be sent now.
    pub(crate) fn put_back(&mut self, line: ToWriter) {
        self.sent -= 1;
        self.put(line);
    }

    /// Notes how many lines the writer says that it has taken.
    pub(crate) fn taken(&mut self, lines: u64) {
        self.taken = lines.clamp(self.taken, self.sent);
    }

    /// Notes that the writer knows all readers that may come back: it waits for none of them.
    pub(crate) fn know_all(&mut self) {
        (self.missing, self.knows_all) = (0, true);
    }

    /// Whether the writer knows all readers that may come back.
    pub(crate) fn knows_all(&self) -> bool {
        self.knows_all
    }

    /// Notes how many readers may come back that the writer must wait for, unless it knows them.
    pub(crate) fn miss(&mut self, readers: u64) {
        self.missing = if self.knows_all { 0 } else { readers };
    }

    /// The number of lines that wait, or are to come.
    pub(crate) fn len(&self) -> usize {
        let single = usize::from(self.revoked.is_some()) + usize::from(self.policy.is_some());
        self.missing as usize + self.left.len() + self.joined.len() + self.sizes.len() + single
    }

    /// Whether the writer has taken all of them.
    pub(crate) fn are_taken(&self) -> bool {
        self.len() == 0 && self.taken == self.sent
    }

    /// Whether some of the lines must wait until the writer has taken others.
    pub(crate) fn is_held_up(&self) -> bool {
        self.len() as u64 > MOST_UNTAKEN - (self.sent - self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn come(reader: u32) -> ToWriter {
        ToWriter::ReaderJoined { reader }
    }

    fn gone(reader: u32) -> ToWriter {
        ToWriter::ReaderLeft { reader }
    }

    fn grown(capacity: u64, done: bool) -> ToWriter {
        ToWriter::Grown { capacity, done }
    }

    fn all(outbox: &mut Outbox) -> Vec<ToWriter> {
        std::iter::from_fn(|| outbox.next()).collect()
    }

    #[test]
    fn a_writer_that_takes_nothing_is_sent_a_few_lines_and_the_rest_is_bounded_by_those_who_stay() {
        let mut outbox = Outbox::default();
        let mut sent = Vec::new();
        for reader in 1..=100_000 {
            outbox.put(come(reader));
            sent.extend(all(&mut outbox));
            if reader % 1000 != 0 {
                outbox.put(gone(reader));
                sent.extend(all(&mut outbox));
            }
        }
        assert_eq!(sent.len() as u64, MOST_UNTAKEN);
        assert_eq!(outbox.len(), 100, "those who stay");
        assert!(outbox.is_held_up());
        for taken in 1.. {
            outbox.taken(taken * MOST_UNTAKEN);
            let more = all(&mut outbox);
            assert!(more.len() as u64 <= MOST_UNTAKEN);
            if more.is_empty() {
                break;
            }
            sent.extend(more);
        }
        let mut known = BTreeSet::new();
        for line in sent {
            let right = match line {
                ToWriter::ReaderJoined { reader } => known.insert(reader),
                ToWriter::ReaderLeft { reader } => known.remove(&reader),
                _ => false,
            };
            assert!(right, "{line:?}");
        }
        assert!(known.into_iter().eq((1..=100).map(|n| n * 1000)), "the writer knows who reads");
        assert!(!outbox.is_held_up());
    }

    #[test]
    fn of_sizes_only_what_still_counts_is_told_and_readers_come_first() {
        let shrink = |id| ToWriter::Shrink { capacity: 4096, id, yields: false };
        let refused = |reason: &str| ToWriter::NotGrown { reason: reason.to_owned() };
        let mut outbox = Outbox::default();
        outbox.put(shrink(1));
        outbox.put(come(7));
        outbox.put(shrink(2));
        assert_eq!(all(&mut outbox), [come(7), shrink(2)]);
        outbox.put(grown(1, true));
        outbox.put(refused("full"));
        outbox.put(grown(2, false));
        outbox.put(shrink(3));
        outbox.put(refused("full again"));
        assert_eq!(all(&mut outbox), [grown(2, true), shrink(3), refused("full again")]);
        outbox.put(shrink(4));
        outbox.put(grown(3, false));
        assert_eq!(all(&mut outbox), [grown(3, false)]);
    }

    #[test]
    fn a_writer_that_claims_more_than_it_was_sent_gains_nothing() {
        let mut outbox = Outbox::default();
        outbox.taken(u64::MAX);
        (1..=100).for_each(|reader| outbox.put(come(reader)));
        assert_eq!(all(&mut outbox).len() as u64, MOST_UNTAKEN);
        outbox.taken(0);
        assert_eq!(outbox.next(), None);
        outbox.taken(1);
        let line = outbox.next().unwrap();
        outbox.put_back(line.clone());
        assert!(!outbox.are_taken());
        assert_eq!((outbox.next(), outbox.next()), (Some(line), None));
    }

    #[test]
    fn a_writer_that_knows_all_who_may_come_waits_for_nobody() {
        let mut outbox = Outbox::default();
        outbox.miss(2);
        assert_eq!((outbox.len(), outbox.are_taken()), (2, false));
        outbox.know_all();
        outbox.miss(1);
        assert_eq!((outbox.len(), outbox.are_taken()), (0, true));
    }

    #[test]
    fn an_order_to_give_the_role_back_does_not_wait_behind_others() {
        let mut outbox = Outbox::default();
        (1..=10).for_each(|reader| outbox.put(come(reader)));
        let revoked = ToWriter::Revoked { reason: "the channel is closing".to_owned() };
        outbox.put(revoked.clone());
        assert_eq!(outbox.next(), Some(revoked));
    }
}
