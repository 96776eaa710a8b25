//! How much went through a channel over the last second, minute and hour.
//!
//! Totals are noted at the daemon's tick only. While a channel is idle its totals stay the same, so a missing note means
//! that nothing happened.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shm_proto::internal::control::stat::Rate;

/// Notes of each second, for the last second and minute; of each minute, for the last hour.
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// One more than the sixty, because the oldest is the base that the difference is taken to, and one for a late tick.
const NOTES: usize = 62;

/// Totals at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    /// When.
    pub(crate) at: Instant,
    /// Messages since the segment was made.
    pub(crate) messages: u64,
    /// Payload bytes since then.
    pub(crate) bytes: u64,
}

/// The notes of one channel.
#[derive(Debug)]
pub(crate) struct History {
    seconds: VecDeque<Totals>,
    minutes: VecDeque<Totals>,
}

/// Averages over three times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Averages {
    pub(crate) second: Rate,
    pub(crate) minute: Rate,
    pub(crate) hour: Rate,
}

impl History {
    /// The history of a channel that begins with these totals.
    pub(crate) fn new(totals: Totals) -> Self {
        let start = VecDeque::from([totals]);
        Self { seconds: start.clone(), minutes: start }
    }

    /// Takes the totals at a tick.
    pub(crate) fn note(&mut self, now: Totals) {
        push(&mut self.seconds, now, SECOND / 2);
        push(&mut self.minutes, now, MINUTE);
    }

    /// The averages up to now.
    pub(crate) fn averages(&self, now: Totals) -> Averages {
        Averages {
            second: average(&self.seconds, now, SECOND, SECOND),
            minute: average(&self.seconds, now, MINUTE, SECOND),
            hour: average(&self.minutes, now, HOUR, MINUTE),
        }
    }
}

fn push(notes: &mut VecDeque<Totals>, now: Totals, apart: Duration) {
    if notes.back().is_some_and(|last| now.at.saturating_duration_since(last.at) < apart) {
        return;
    }
    if notes.len() == NOTES {
        notes.pop_front();
    }
    notes.push_back(now);
}

/// From the last note before the time to now. A note much older than that was followed by rest, which counts as far as it
/// lies within the time.
#[allow(clippy::cast_precision_loss)] // A rate needs no more than 53 bits.
fn average(notes: &VecDeque<Totals>, now: Totals, time: Duration, apart: Duration) -> Rate {
    let age = |note: &Totals| now.at.saturating_duration_since(note.at);
    let Some(base) = notes.iter().rev().find(|note| age(note) >= time).or(notes.front()) else {
        return Rate::default();
    };
    let seconds = age(base).clamp(SECOND, time + apart).as_secs_f64();
    let a_second = |now: u64, base: u64| now.saturating_sub(base) as f64 / seconds;
    Rate::new(a_second(now.messages, base.messages), a_second(now.bytes, base.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A channel on which `rate` messages of 10 bytes a second are sent from second `from` to second `to`.
    fn run(history: &mut History, start: Instant, from: u64, to: u64, rate: u64, mut messages: u64) -> u64 {
        for second in from..=to {
            history.note(Totals {
                at: start + SECOND * u32::try_from(second).unwrap(),
                messages,
                bytes: messages * 10,
            });
            messages += rate;
        }
        messages - rate
    }

    fn at(start: Instant, second: u64, messages: u64) -> Totals {
        Totals { at: start + Duration::from_secs(second), messages, bytes: messages * 10 }
    }

    #[test]
    fn a_steady_stream_has_one_rate_over_every_time() {
        let start = Instant::now();
        let mut history = History::new(at(start, 0, 0));
        let messages = run(&mut history, start, 1, 7200, 100, 100);
        let averages = history.averages(at(start, 7200, messages));
        for rate in [averages.second, averages.minute, averages.hour] {
            assert!(
                (rate.messages_per_s - 100.0).abs() < 0.01 && (rate.bytes_per_s - 1000.0).abs() < 0.1,
                "{averages:?}"
            );
        }
    }

    #[test]
    fn after_an_end_the_times_are_over_one_by_one_although_nobody_takes_notes() {
        let start = Instant::now();
        let mut history = History::new(at(start, 0, 0));
        let messages = run(&mut history, start, 1, 60, 60, 60);
        let later = |second| history.averages(at(start, second, messages));
        let (soon, then, end) = (later(62), later(200), later(60 + 3700));
        assert_eq!(soon.second, Rate::default());
        assert!(soon.minute.messages_per_s > 55.0, "{soon:?}");
        assert_eq!(then.minute, Rate::default());
        assert!((then.hour.messages_per_s - 3600.0 / 200.0).abs() < 0.1, "{then:?}");
        assert_eq!(end.hour, Rate::default());
    }

    #[test]
    fn what_comes_after_a_rest_is_not_spread_over_the_rest() {
        let start = Instant::now();
        let history = History::new(at(start, 0, 0));
        let averages = history.averages(at(start, 10_000, 122));
        assert!((averages.second.messages_per_s - 61.0).abs() < 0.1, "{averages:?}");
        assert!((averages.minute.messages_per_s - 2.0).abs() < 0.1, "{averages:?}");
    }

    #[test]
    fn a_young_channel_is_averaged_over_its_life() {
        let start = Instant::now();
        let averages = History::new(at(start, 0, 0)).averages(at(start, 10, 50));
        assert!((averages.hour.messages_per_s - 5.0).abs() < 0.01, "{averages:?}");
    }
}
