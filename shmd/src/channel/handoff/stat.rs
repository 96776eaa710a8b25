//! What `list` and `stat` show of a handoff channel.

use std::time::{Duration, Instant};

use shm_proto::internal::control::stat::{ChannelStat, HandoffStat, Mode, Right, Summary};
use shm_proto::internal::ring::Snapshot;

use super::HandoffChannel;

/// What each of the two semaphores takes in `/dev/shm`, in bytes.
const SEMAPHORE: u64 = 4096;

/// Messages start at byte 60.
const ALIGN: u32 = 4;

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl HandoffChannel {
    pub(in crate::channel) fn memory(&self) -> u64 {
        self.feed.segments().memory() + self.thread.state().capacity + 2 * SEMAPHORE
    }

    pub(in crate::channel) fn summary(&self, allowed: Vec<Right>) -> Summary {
        Summary {
            channel: self.config.name.clone(),
            mode: Mode::Handoff,
            capacity: self.thread.state().capacity,
            readers: u32::try_from(self.reader_count()).unwrap_or(u32::MAX),
            writer: self.feed.writer_name(),
            allowed,
        }
    }

    /// Everything about it. Readers that attach to no daemon, C programs say, are nowhere to be seen.
    pub(in crate::channel) fn stat(&self, shot: &Snapshot, memory_total: u64) -> ChannelStat {
        let averages = self.history.averages(self.totals(Instant::now()));
        let state = self.thread.state();
        let (config, counters) = (&self.config, state.counters);
        let age = |since: Instant| milliseconds(since.elapsed());
        let on_offer = state.on_offer.map(|(len, _)| len);
        // Each message may have been read by one reader, or again by another.
        let most = counters.messages + counters.dropped + counters.offered_again + 1;
        ChannelStat {
            channel: config.name.clone(),
            segment: self.names.segment.clone(),
            mode: Mode::Handoff,
            on_full: config.on_full.into(),
            capacity: state.capacity,
            min: config.min,
            max: config.max,
            reserved: state.capacity,
            memory: self.memory(),
            memory_total,
            pending: state.pending,
            used: on_offer.unwrap_or(0),
            retained: on_offer.unwrap_or(0),
            max_message: config.max_message,
            align: ALIGN,
            messages: counters.messages,
            bytes: counters.bytes,
            messages_per_s: averages.second.messages_per_s,
            bytes_per_s: averages.second.bytes_per_s,
            last_minute: averages.minute,
            last_hour: averages.hour,
            dropped: counters.dropped,
            overwritten: 0,
            resizes: counters.resizes,
            evicted: self.readers.evicted(),
            max_readers: config.max_readers,
            stalled_after_ms: self.feed.stalled_after_ms(),
            source: config.source.to_string(),
            input: self.feed.fed().map(|report| report.stat()),
            handoff: Some(HandoffStat {
                objects: self.names.clone(),
                on_offer,
                on_offer_ms: state.on_offer.map(|(_, since)| age(since)),
                last_ack_ms: state.last_ack.map(age),
                stalled: self.pulse.is_stalled(),
                offered_again: counters.offered_again,
                recovered: counters.recovered,
                repaired: counters.repaired,
                stray_posts: counters.stray_posts,
            }),
            writer: self.feed.writer_stat(shot),
            readers: self
                .readers
                .iter()
                .map(|(number, reader)| reader.stat(number, reader.heartbeat() != 0, most))
                .collect(),
        }
    }
}
