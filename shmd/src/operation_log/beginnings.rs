//! Where the entries about a channel begin whose name another channel had before, which may have been somebody else's. Pure.

use std::collections::BTreeMap;

use shm_proto::ChannelName;
use shm_proto::internal::control::log::{LogEntry, LogEvent};

/// The channels whose names were others' before, as far as there are entries about those.
#[derive(Debug, Default)]
pub(super) struct Beginnings(BTreeMap<ChannelName, Beginning>);

#[derive(Debug, Default)]
struct Beginning {
    /// The former channel was removed, and no other was created since.
    is_removed: bool,
    /// The number of the newest entry that says so.
    told: u64,
    /// The number of the channel's first entry; 0 for all.
    first: u64,
}

impl Beginnings {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// An entry is kept.
    pub(super) fn note(&mut self, entry: &LogEntry) {
        let Some(channel) = &entry.channel else { return };
        match entry.event {
            LogEvent::Remove => {
                let beginning = self.0.entry(channel.clone()).or_default();
                (beginning.is_removed, beginning.told) = (true, entry.seq);
            }
            LogEvent::Create => {
                if let Some(beginning) = self.0.get_mut(channel).filter(|beginning| beginning.is_removed) {
                    *beginning = Beginning { is_removed: false, told: entry.seq, first: entry.seq };
                }
            }
            _ => {}
        }
    }

    /// This is the number of the oldest entry that is left.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        self.0.retain(|_, beginning| beginning.told >= oldest);
    }

    /// The number of the first entry about this channel.
    pub(super) fn of(&self, channel: &ChannelName) -> u64 {
        self.0.get(channel).map_or(0, |beginning| beginning.first)
    }
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::log::Severity;

    use super::*;

    fn noted(events: &[(LogEvent, &str)]) -> Beginnings {
        let mut beginnings = Beginnings::default();
        for (seq, (event, channel)) in (1..).zip(events) {
            let mut entry = LogEntry::new(Severity::Info, event.clone());
            (entry.seq, entry.channel) = (seq, Some(channel.parse().unwrap()));
            beginnings.note(&entry);
        }
        beginnings
    }

    fn of(beginnings: &Beginnings, channel: &str) -> u64 {
        beginnings.of(&channel.parse().unwrap())
    }

    #[test]
    fn a_channel_begins_with_its_creation_after_the_removal_of_another() {
        let (create, remove) = (|| (LogEvent::Create, "a"), || (LogEvent::Remove, "a"));
        assert_eq!(of(&noted(&[create()]), "a"), 0);
        // After a crash, the same channel may get another segment.
        assert_eq!(of(&noted(&[create(), create()]), "a"), 0);
        // What the former channel's readers did after its removal is not the new one's either.
        let again = noted(&[create(), remove(), (LogEvent::Detach, "a"), (LogEvent::Create, "b"), create(), create()]);
        assert_eq!((of(&again, "a"), of(&again, "b")), (5, 0));
        assert_eq!(of(&noted(&[create(), remove(), create(), remove(), create()]), "a"), 5);
    }

    #[test]
    fn nothing_is_remembered_of_which_no_entry_is_left() {
        let mut beginnings = noted(&[(LogEvent::Remove, "a"), (LogEvent::Remove, "b"), (LogEvent::Create, "b")]);
        beginnings.forget_before(3);
        assert_eq!((beginnings.0.len(), of(&beginnings, "b")), (1, 3));
        beginnings.forget_before(4);
        assert!(beginnings.0.is_empty());
    }
}
