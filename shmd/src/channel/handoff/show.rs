//! What `list` and `stat` show of a handoff channel instead of its feed.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shm_proto::internal::control::stat::{ChannelStat, HandoffStat, ReaderStat, Summary};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::ring::layout::waiting;

use super::{Handoff, Reader};
use crate::config::ChannelConfig;

/// What each of the two semaphores takes in `/dev/shm`, in bytes.
const SEMAPHORE: u64 = 4096;

/// Messages start at byte 60.
const ALIGN: u32 = 4;

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Handoff {
    /// As configured.
    pub(in crate::channel) fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// Readers that the daemon knows of.
    pub(crate) fn reader_count(&self) -> usize {
        self.readers.len()
    }

    /// Messages acknowledged so far, and their bytes.
    pub(in crate::channel) fn handed_over(&self) -> (u64, u64) {
        let counters = self.bridge.state().counters;
        (counters.messages, counters.bytes)
    }

    /// What the objects take in `/dev/shm`, in bytes.
    pub(in crate::channel) fn memory(&self) -> u64 {
        self.bridge.state().capacity + 2 * SEMAPHORE
    }

    /// For `list`.
    pub(crate) fn summarise(&self, summary: &mut Summary) {
        summary.mode = "handoff".to_owned();
        summary.capacity = self.bridge.state().capacity;
    }

    /// For `stat`. Readers that attach to no daemon, C programs say, are nowhere to be seen.
    pub(crate) fn overlay(&self, stat: &mut ChannelStat) {
        let state = self.bridge.state();
        let (config, counters) = (&self.config, state.counters);
        let age = |since: Instant| milliseconds(since.elapsed());
        stat.mode = "handoff".to_owned();
        stat.segment.clone_from(&self.names.segment);
        stat.on_full = config.on_full;
        (stat.min, stat.max) = (config.min, config.max);
        (stat.capacity, stat.reserved, stat.pending) = (state.capacity, state.capacity, state.pending);
        stat.used = state.on_offer.map_or(0, |(len, _)| len);
        stat.retained = stat.used;
        (stat.messages, stat.bytes) = (counters.messages, counters.bytes);
        (stat.dropped, stat.overwritten) = (counters.dropped, 0);
        (stat.resizes, stat.evicted) = (counters.resizes, self.evicted);
        stat.max_readers = config.max_readers;
        stat.align = ALIGN;
        stat.handoff = Some(HandoffStat {
            objects: self.names.clone(),
            on_offer: state.on_offer.map(|(len, _)| len),
            on_offer_ms: state.on_offer.map(|(_, since)| age(since)),
            last_ack_ms: state.last_ack.map(age),
            stalled: self.pulse.is_stalled(),
            offered_again: counters.offered_again,
            recovered: counters.recovered,
            repaired: counters.repaired,
            stray_posts: counters.stray_posts,
        });
        // Each message may have been read by one reader, or again by another.
        let most = counters.messages + counters.dropped + counters.offered_again + 1;
        stat.readers = self.readers.iter().map(|(&number, reader)| show(number, reader, most)).collect();
    }
}

/// A reader as it reports itself, clamped to what is possible.
fn show(number: u32, reader: &Reader, most: u64) -> ReaderStat {
    let page = reader.page();
    let heartbeat = page.line.heartbeat.load(Ordering::Relaxed);
    let asleep = page.waiting.value.load(Ordering::Relaxed) != waiting::NO;
    let state = match () {
        () if reader.evicted => "evicted",
        () if reader.pulse.is_stalled() => "stalled",
        () if heartbeat == 0 => "joining",
        () if asleep => "sleeping",
        () => "reading",
    };
    ReaderStat {
        reader: number,
        pid: reader.peer.pid,
        program: reader.peer.program.clone(),
        user: reader.peer.user.clone(),
        state: state.to_owned(),
        lag_messages: 0,
        lag_bytes: 0,
        received: page.line.received.load(Ordering::Relaxed).min(most),
        lost: 0,
        heartbeat_ms: if heartbeat == 0 { 0 } else { monotonic_ns().saturating_sub(heartbeat) / 1_000_000 },
    }
}
