//! Builds what `list` and `stat` show.
//!
//! Figures that a reader or a lent writer keeps itself are shown as it reports them, clamped to what is possible.

use std::sync::atomic::Ordering;

use shm_proto::internal::control::stat::{ChannelStat, ReaderStat, Summary, WriterStat};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::ring::Snapshot;

use crate::channel::{Channel, Reader};
use crate::lease::Holder;
use crate::source::Report;

/// One line of `list`.
pub(crate) fn summary(channel: &Channel, allowed: Vec<String>) -> Summary {
    let mut summary = Summary {
        channel: channel.config().name.clone(),
        mode: "ring".to_owned(),
        capacity: channel.sizing().capacity(),
        readers: u32::try_from(channel.reader_count()).unwrap_or(u32::MAX),
        writer: channel.lease().map_or_else(|| "none".to_owned(), |lease| lease.describe()),
        allowed,
    };
    if let Some(handoff) = channel.handoff() {
        handoff.summarise(&mut summary);
    }
    summary
}

/// Everything about a channel; `memory_total` is what all of the daemon's channels take, in bytes.
pub(crate) fn channel(channel: &Channel, shot: &Snapshot, memory_total: u64) -> ChannelStat {
    let averages = channel.averages(shot);
    let (config, sizing) = (channel.config(), channel.sizing());
    let capacity = sizing.capacity();
    let mut stat = ChannelStat {
        channel: config.name.clone(),
        segment: channel.segment().name().to_owned(),
        mode: "ring".to_owned(),
        on_full: config.on_full,
        capacity,
        min: config.min,
        max: config.max,
        reserved: capacity,
        memory: channel.memory(),
        memory_total,
        pending: sizing.pending(),
        used: channel.used(shot),
        retained: shot.tail.pos.saturating_sub(shot.floor.pos).min(config.max),
        max_message: config.max_message,
        align: config.align,
        messages: shot.tail.seq,
        bytes: shot.tail.bytes,
        messages_per_s: averages.second.messages_per_s,
        bytes_per_s: averages.second.bytes_per_s,
        last_minute: averages.minute,
        last_hour: averages.hour,
        dropped: shot.dropped,
        overwritten: shot.overwritten,
        resizes: channel.resizes(),
        evicted: channel.evicted(),
        max_readers: config.max_readers,
        stalled_after_ms: config.stalled_after.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        source: config.source.to_string(),
        input: channel.fed().map(Report::stat),
        handoff: None,
        writer: writer(channel, shot),
        readers: channel.readers().iter().map(|(number, r)| reader(*number, r, shot)).collect(),
    };
    if let Some(handoff) = channel.handoff() {
        handoff.overlay(&mut stat);
    }
    stat
}

fn age_ms(heartbeat_ns: u64) -> u64 {
    monotonic_ns().saturating_sub(heartbeat_ns) / 1_000_000
}

fn writer(channel: &Channel, shot: &Snapshot) -> Option<WriterStat> {
    let heartbeat_ms = age_ms(shot.writer_heartbeat);
    let lease = channel.lease()?;
    let state = if lease.pulse.is_stalled() { "stalled" } else { "active" }.to_owned();
    match &lease.holder {
        Holder::Lent { peer, .. } => Some(WriterStat {
            pid: peer.pid,
            program: peer.program.clone(),
            user: peer.user.clone(),
            role: "lent".to_owned(),
            state,
            heartbeat_ms,
        }),
        Holder::Source(_) => Some(WriterStat {
            pid: std::process::id(),
            program: "shmd".to_owned(),
            user: channel.own_user().to_owned(),
            role: "source".to_owned(),
            state,
            heartbeat_ms,
        }),
        Holder::Helper { .. } => None,
    }
}

fn reader(number: u32, reader: &Reader, shot: &Snapshot) -> ReaderStat {
    let line = &reader.page().line;
    let lag_bytes = lag_bytes(reader, shot);
    let heartbeat = line.heartbeat.load(Ordering::Relaxed);
    ReaderStat {
        reader: number,
        pid: reader.peer.pid,
        program: reader.peer.program.clone(),
        user: reader.peer.user.clone(),
        state: reader.state().to_owned(),
        lag_messages: lag_messages(reader, lag_bytes, shot),
        lag_bytes,
        received: line.received.load(Ordering::Relaxed).min(shot.tail.seq),
        lost: line.lost.load(Ordering::Relaxed).min(shot.tail.seq),
        heartbeat_ms: if heartbeat == 0 { 0 } else { age_ms(heartbeat) },
    }
}

/// What the reader has not read; a reader that has not chosen its start has nothing to catch up with.
fn lag_bytes(reader: &Reader, shot: &Snapshot) -> u64 {
    let cursor = reader.cursor().unwrap_or(shot.tail.pos);
    shot.tail.pos.saturating_sub(cursor.max(shot.floor.pos))
}

/// Messages that the reader has not read, by the number it shows for its cursor; none where it has no bytes to read.
fn lag_messages(reader: &Reader, lag_bytes: u64, shot: &Snapshot) -> u64 {
    if lag_bytes == 0 {
        return 0;
    }
    let next = reader.page().line.seq.load(Ordering::Relaxed);
    shot.tail.seq.saturating_sub(next.max(shot.floor.seq))
}
