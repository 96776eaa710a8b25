//! What `list` and `stat` show of a handoff channel.

use std::time::{Duration, Instant};

use shm_proto::WaitStrategy;
use shm_proto::internal::control::stat::{ChannelStat, HandoffStat, Mode, Right, Summary};
use shm_proto::internal::ring::Snapshot;

use super::HandoffChannel;
use crate::channel::reader::Reader;
use crate::config::Created;

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
        let mut summary = Summary::new(self.config.name.clone(), Mode::Handoff, self.feed.writer_name());
        summary.capacity = self.thread.state().capacity;
        summary.readers = u32::try_from(self.reader_count()).unwrap_or(u32::MAX);
        summary.allowed = allowed;
        summary.created = self.config.created.as_deref().map(Created::shown);
        summary.content = self.config.declared.content.clone();
        summary
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
        let mut handoff = HandoffStat::new(self.names.clone());
        handoff.on_offer = on_offer;
        handoff.on_offer_ms = state.on_offer.map(|(_, since)| age(since));
        handoff.last_ack_ms = state.last_ack.map(age);
        handoff.stalled = self.pulse.is_stalled();
        handoff.offered_again = counters.offered_again;
        handoff.recovered = counters.recovered;
        handoff.repaired = counters.repaired;
        handoff.stray_posts = counters.stray_posts;
        let mut stat = ChannelStat::new(config.name.clone(), Mode::Handoff, self.names.segment.clone());
        stat.created = config.created.as_deref().map(Created::shown);
        stat.content = config.declared.content.clone();
        stat.on_full = config.on_full.into();
        stat.capacity = state.capacity;
        stat.min = config.min;
        stat.max = config.max;
        stat.reserved = state.capacity;
        stat.memory = self.memory();
        stat.memory_total = memory_total;
        stat.pending = state.pending;
        stat.used = on_offer.unwrap_or(0);
        stat.retained = on_offer.unwrap_or(0);
        stat.max_message = config.max_message;
        stat.align = ALIGN;
        stat.messages = counters.messages;
        stat.bytes = counters.bytes;
        stat.messages_per_s = averages.second.messages_per_s;
        stat.bytes_per_s = averages.second.bytes_per_s;
        stat.last_minute = averages.minute;
        stat.last_hour = averages.hour;
        stat.dropped = counters.dropped;
        stat.resizes = counters.resizes;
        stat.evicted = self.readers.evicted();
        stat.max_readers = config.max_readers;
        stat.stalled_after_ms = self.feed.stalled_after_ms();
        stat.source = config.source.to_string();
        stat.input = self.feed.fed().map(|report| report.stat());
        stat.handoff = Some(handoff);
        stat.writer = self.feed.writer_stat(shot);
        let reader_stat = |(number, reader): (u32, &Reader)| {
            let mut stat = reader.stat(number, reader.heartbeat() != 0, most);
            // It sleeps on the channel's semaphore.
            stat.wait = WaitStrategy::Sleep.to_string();
            stat
        };
        stat.readers = self.readers.iter().map(reader_stat).collect();
        stat
    }
}
