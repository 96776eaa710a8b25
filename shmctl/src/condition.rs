//! How a channel is: in one word, and by whose doing.

use shm_proto::OnFull;
use shm_proto::internal::control::stat::{ChannelStat, FullPolicy, ReaderStat, ReaderState, SourceState, WriterState};

use crate::colour::Colour;
use crate::human::printable;

/// How a channel is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// The source gave up.
    Failed,
    /// There is no room for another message of the usual size until the slowest reader goes on.
    Full,
    /// The source cannot be opened and is tried again.
    Retrying,
    /// The writer or a reader shows no sign of life.
    Stalled,
    /// A reader was evicted and has not detached yet.
    Evicted,
    Fine,
}

impl Condition {
    pub(crate) fn of(stat: &ChannelStat) -> Self {
        let source = stat.input.as_ref().map(|input| &input.state);
        let any = |state: ReaderState| stat.readers.iter().any(|reader| reader.state == state);
        let is_stalled = stat.writer.as_ref().is_some_and(|writer| writer.state == WriterState::Stalled)
            || stat.handoff.as_ref().is_some_and(|handoff| handoff.stalled);
        if source == Some(&SourceState::Failed) {
            Condition::Failed
        } else if is_full(stat) {
            Condition::Full
        } else if source == Some(&SourceState::Retrying) {
            Condition::Retrying
        } else if is_stalled || any(ReaderState::Stalled) {
            Condition::Stalled
        } else if any(ReaderState::Evicted) {
            Condition::Evicted
        } else {
            Condition::Fine
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Condition::Failed => "failed",
            Condition::Full => "full",
            Condition::Retrying => "retrying",
            Condition::Stalled => "stalled",
            Condition::Evicted => "evicted",
            Condition::Fine => "ok",
        }
    }
}

/// The colour of a state's word, wherever such a word is shown.
pub(crate) fn colour_of(state: &str) -> Option<Colour> {
    // The reader's way of waiting may follow the state.
    match state.split(',').next().unwrap_or_default() {
        "evicted" | "failed" | "full" => Some(Colour::Red),
        "stalled" | "retrying" => Some(Colour::Yellow),
        _ => None,
    }
}

/// Whether the ring has no room for another message of the average size, or is nine tenths full.
pub(crate) fn is_full(stat: &ChannelStat) -> bool {
    if stat.handoff.is_some() || stat.used == 0 || stat.capacity == 0 {
        return false;
    }
    let free = stat.capacity.saturating_sub(stat.used);
    let usual = stat.bytes.checked_div(stat.messages).unwrap_or(0);
    free < usual || free <= stat.capacity / 10
}

/// The reader that is furthest behind, whose progress gives space.
pub(crate) fn slowest(stat: &ChannelStat) -> Option<&ReaderStat> {
    let attached = stat.readers.iter().filter(|reader| reader.state != ReaderState::Evicted && reader.lag_bytes > 0);
    attached.max_by_key(|reader| reader.lag_bytes)
}

/// What the slowest reader of a full channel does to the channel; `stands`: the reader has read nothing from one look to the next.
pub(crate) fn effect(policy: &FullPolicy, stands: bool) -> &'static str {
    match policy {
        FullPolicy::Known(OnFull::Block) if stands => "holds the writer up",
        FullPolicy::Known(OnFull::Block) => "slows the writer down",
        FullPolicy::Known(OnFull::Drop) => "makes the channel drop messages",
        _ => "loses messages that are overwritten",
    }
}

/// A reader as people know it.
pub(crate) fn name(reader: &ReaderStat) -> String {
    let (program, user) = (printable(&reader.program), printable(&reader.user));
    format!("reader {} ({program}, pid {}, user {user})", reader.reader, reader.pid)
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::{Mode, SourceKind, SourceStat, WriterRole, WriterStat};

    use super::*;

    fn channel() -> ChannelStat {
        let mut stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
        stat.capacity = 1000;
        stat
    }

    fn reader(number: u32, lag_bytes: u64, state: ReaderState) -> ReaderStat {
        let mut reader = ReaderStat::new(number, 1, "view".into(), "me".into(), state);
        reader.lag_bytes = lag_bytes;
        reader
    }

    #[test]
    fn the_worst_is_what_a_channel_is_called() {
        let mut stat = channel();
        assert_eq!(Condition::of(&stat), Condition::Fine);
        stat.readers.push(reader(1, 0, ReaderState::Evicted));
        assert_eq!(Condition::of(&stat), Condition::Evicted);
        let mut writer = WriterStat::new(WriterRole::Lent, 1, "camd".into(), "me".into());
        writer.state = WriterState::Stalled;
        stat.writer = Some(writer);
        assert_eq!(Condition::of(&stat), Condition::Stalled);
        stat.input = Some(SourceStat::new(SourceKind::Fifo, None, SourceState::Retrying));
        assert_eq!(Condition::of(&stat), Condition::Retrying);
        stat.used = 950;
        assert_eq!(Condition::of(&stat), Condition::Full);
        stat.input = Some(SourceStat::new(SourceKind::Fifo, None, SourceState::Failed));
        assert_eq!(Condition::of(&stat).word(), "failed");
    }

    #[test]
    fn a_channel_is_full_when_another_message_of_the_usual_size_has_no_room() {
        let mut stat = channel();
        stat.used = 700;
        assert!(!is_full(&stat));
        (stat.messages, stat.bytes) = (2, 800);
        assert!(is_full(&stat));
        (stat.used, stat.bytes) = (0, 4000);
        assert!(!is_full(&stat));
    }

    #[test]
    fn the_culprit_is_furthest_behind_and_attached() {
        let mut stat = channel();
        assert!(slowest(&stat).is_none());
        for (number, lag, state) in
            [(1, 10, ReaderState::Reading), (2, 90, ReaderState::Evicted), (3, 20, ReaderState::Sleeping)]
        {
            stat.readers.push(reader(number, lag, state));
        }
        assert_eq!(slowest(&stat).map(|reader| reader.reader), Some(3));
    }

    #[test]
    fn a_state_has_its_colour_however_the_reader_waits() {
        assert_eq!(colour_of("evicted, spin=50us"), Some(Colour::Red));
        assert_eq!(colour_of("stalled"), Some(Colour::Yellow));
        assert_eq!(colour_of("reading"), None);
    }
}
