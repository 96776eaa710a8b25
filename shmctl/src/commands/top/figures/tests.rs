use shm_proto::OnFull;
use shm_proto::internal::control::log::{LogEvent, Severity};
use shm_proto::internal::control::stat::{HandoffStat, Mode};
use shm_proto::internal::handoff::Names;

use super::*;

/// A channel that has published this number of messages, each of 10 bytes.
pub(in super::super) fn channel(name: &str, messages: u64) -> ChannelStat {
    let mut stat = ChannelStat::new(name.parse().unwrap(), Mode::Ring, format!("/shmd.{name}"));
    (stat.capacity, stat.min, stat.max, stat.max_readers) = (1 << 20, 64 << 10, 256 << 20, 64);
    (stat.messages, stat.bytes) = (messages, 10 * messages);
    stat
}

/// A reader that has received `received` messages and has `lag` messages still to read.
pub(in super::super) fn reader(number: u32, received: u64, lag: u64) -> ReaderStat {
    let mut reader = ReaderStat::new(number, 4700 + number, "view".into(), "me".into(), ReaderState::Reading);
    (reader.received, reader.lag_messages, reader.lag_bytes) = (received, lag, 32 * lag);
    reader
}

/// The same channel with a reader that keeps it full.
pub(in super::super) fn full(name: &str, messages: u64, mut culprit: ReaderStat) -> ChannelStat {
    let mut stat = channel(name, messages);
    stat.used = stat.capacity;
    culprit.lag_bytes = stat.capacity;
    stat.readers.push(culprit);
    stat
}

/// The figures after these looks, a second apart.
pub(in super::super) fn after(looks: impl IntoIterator<Item = Vec<ChannelStat>>) -> Figures {
    let mut at = Instant::now();
    let mut figures = Figures::new(at);
    for look in looks {
        figures.look(look, at);
        at += Duration::from_secs(1);
    }
    figures
}

fn rates(figures: &Figures) -> Option<(f64, f64)> {
    figures.channels[0].rate.map(|rate| (rate.messages_per_s, rate.bytes_per_s))
}

#[test]
fn rates_are_differences_over_the_time_between_two_looks() {
    let begin = Instant::now();
    let mut figures = Figures::new(begin);
    let look = |messages, received| {
        let mut stat = channel("cam", messages);
        stat.readers.push(reader(3, received, messages - received));
        vec![stat]
    };
    figures.look(look(100, 50), begin + Duration::from_secs(7));
    assert_eq!((rates(&figures), figures.between), (None, None));
    assert_eq!(figures.channels[0].history.newest_first().count(), 0);
    figures.look(look(600, 150), begin + Duration::from_millis(7250));
    assert_eq!(rates(&figures), Some((2000.0, 20_000.0)));
    assert_eq!(figures.channels[0].readers[0].rate, Some(400.0));
    figures.look(look(600, 150), begin + Duration::from_secs(8));
    assert_eq!((rates(&figures), figures.channels[0].readers[0].rate), (Some((0.0, 0.0)), Some(0.0)));
    // Two looks at the same moment say nothing.
    figures.look(look(700, 160), begin + Duration::from_secs(8));
    assert_eq!((rates(&figures), figures.channels[0].readers[0].rate), (None, None));
    let history: Vec<_> = figures.channels[0].history.newest_first().collect();
    assert_eq!(history, [None, Some(0.0), Some(2000.0)]);
}

#[test]
fn counters_that_fall_belong_to_another_instance_and_no_rate_is_negative() {
    let with = |messages, number, received| {
        let mut stat = channel("cam", messages);
        stat.readers.push(reader(number, received, 0));
        vec![stat]
    };
    let figures = after([with(1000, 1, 900), with(10, 1, 5)]);
    assert_eq!((rates(&figures), figures.channels[0].readers[0].rate), (None, None));
    let figures = after([with(1000, 1, 900), with(10, 1, 5), with(30, 1, 25)]);
    assert_eq!((rates(&figures), figures.channels[0].readers[0].rate), (Some((20.0, 200.0)), Some(20.0)));
    // Another reader, and a channel that was created in between.
    let figures = after([with(10, 1, 5), with(20, 2, 500)]);
    assert_eq!((rates(&figures), figures.channels[0].readers[0].rate), (Some((10.0, 100.0)), None));
    let figures = after([vec![channel("a", 7)], vec![channel("a", 8), channel("b", 1000)]]);
    assert!(figures.channels[1].rate.is_none());
}

#[test]
fn time_without_an_answer_is_a_gap_and_the_next_rate_is_over_all_of_it() {
    let begin = Instant::now();
    let mut figures = Figures::new(begin);
    figures.look(vec![channel("cam", 0)], begin);
    figures.miss();
    figures.miss();
    figures.look(vec![channel("cam", 300)], begin + Duration::from_secs(3));
    let history: Vec<_> = figures.channels[0].history.newest_first().collect();
    assert_eq!(history, [Some(100.0), None, None]);
    for _ in 0..1000 {
        figures.miss();
    }
    assert_eq!(figures.channels[0].history.newest_first().count(), POINTS);
}

#[test]
fn a_reader_that_stands_still_holds_the_writer_up_from_then_on() {
    let look = |used: u64, received| {
        let mut stat = full("cam", 100, reader(3, received, 50));
        stat.used = used;
        vec![stat]
    };
    let most = 1 << 20;
    // It reads, then it stands; top has seen both begin.
    let figures = after([look(0, 1), look(most, 2), look(most, 2), look(most, 2)]);
    let channel = &figures.channels[0];
    assert_eq!(
        channel.blame(figures.at).as_deref(),
        Some("reader 3 (view, pid 4703, user me) holds the writer up for 2.0s")
    );
    assert_eq!(channel.held.as_ref().unwrap().since.in_short(figures.at), " 2.0s");
    // A reader that is slow, since the third look.
    let figures = after([look(0, 1), look(0, 2), look(most, 3), look(most, 4)]);
    assert!(figures.channels[0].blame(figures.at).unwrap().ends_with("slows the writer down for 1.0s"));
    // It stood already at the first look.
    let figures = after([look(most, 2), look(most, 2)]);
    assert!(figures.channels[0].blame(figures.at).unwrap().ends_with("holds the writer up for more than 1.0s"));
    assert_eq!(figures.channels[0].held.as_ref().unwrap().since.in_short(figures.at), " >1.0s");
    // Space was there in between.
    let figures = after([look(most, 2), look(0, 3), look(most, 4)]);
    assert!(figures.channels[0].blame(figures.at).unwrap().ends_with("slows the writer down"));
    // One look does not tell how the reader is.
    let figures = after([look(most, 2)]);
    assert!(figures.channels[0].blame(figures.at).unwrap().ends_with("keeps the channel full"));
    assert!(after([look(most, 2), look(0, 2)]).channels[0].held.is_none());
}

#[test]
fn the_effect_is_that_of_the_policy_and_another_culprit_begins_anew() {
    let look = |number, received, policy: OnFull| {
        let mut stat = full("cam", 100, reader(number, received, 50));
        stat.on_full = policy.into();
        vec![stat]
    };
    let figures = after([look(3, 1, OnFull::Drop), look(3, 1, OnFull::Drop), look(4, 1, OnFull::Drop)]);
    let blame = figures.channels[0].blame(figures.at).unwrap();
    assert_eq!(blame, "reader 4 (view, pid 4704, user me) makes the channel drop messages");
    let figures = after([look(3, 1, OnFull::Overwrite), look(3, 1, OnFull::Overwrite)]);
    assert!(figures.channels[0].blame(figures.at).unwrap().contains("loses messages that are overwritten"));
}

#[test]
fn another_program_with_the_number_of_the_culprit_has_not_held_anything_up_yet() {
    let look = |pid| {
        let mut culprit = reader(3, 1, 50);
        culprit.pid = pid;
        vec![full("cam", 100, culprit)]
    };
    let figures = after([look(7), look(7), look(8)]);
    let blame = figures.channels[0].blame(figures.at).unwrap();
    assert_eq!(blame, "reader 3 (view, pid 8, user me) slows the writer down");
    let figures = after([look(7), look(7), look(8), look(8)]);
    assert!(figures.channels[0].blame(figures.at).unwrap().ends_with("holds the writer up for 1.0s"));
}

#[test]
fn a_handoff_that_nobody_acknowledges_has_the_daemons_time() {
    let mut stat = channel("cam", 5);
    let mut handoff = HandoffStat::new(Names::new("/a", "/b", "/c").unwrap());
    (handoff.on_offer, handoff.on_offer_ms) = (Some(7), Some(12_000));
    stat.handoff = Some(handoff.clone());
    assert!(after([vec![stat.clone()]]).channels[0].held.is_none());
    handoff.stalled = true;
    stat.handoff = Some(handoff);
    let figures = after([vec![stat]]);
    assert_eq!(
        figures.channels[0].blame(figures.at).as_deref(),
        Some("no reader has acknowledged the message on offer for 12.0s")
    );
}

#[test]
fn the_age_of_what_is_unread_is_the_publish_times_or_a_lower_bound() {
    let look = |messages, lag, ns| {
        let mut stat = channel("cam", messages);
        let mut reader = reader(3, messages - lag, lag);
        reader.oldest_unread_ns = ns;
        stat.readers.push(reader);
        vec![stat]
    };
    let oldest = |figures: &Figures| figures.channels[0].readers[0].oldest(figures.at);
    assert_eq!(oldest(&after([look(10, 4, Some(1_500_000))])), Oldest::Exactly(Duration::from_micros(1500)));
    assert_eq!(oldest(&after([look(10, 4, None)])), Oldest::Unknown);
    assert_eq!(oldest(&after([look(10, 4, None), look(20, 14, None)])), Oldest::AtLeast(Duration::from_secs(1)));
    assert_eq!(oldest(&after([look(10, 4, None), look(20, 0, None)])), Oldest::Unknown);
}

#[test]
fn the_newest_operations_are_kept() {
    let mut figures = after([]);
    for seq in 1..=300 {
        let mut entry = LogEntry::new(Severity::Info, LogEvent::Grow);
        entry.seq = seq;
        figures.log(vec![entry]);
    }
    assert_eq!(figures.operations.len(), OPERATIONS as usize);
    assert_eq!(figures.operations.back().unwrap().seq, 300);
}
