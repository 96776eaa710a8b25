//! The metrics: their names, their meanings, and where their values come from.

use shm_proto::internal::control::stat::{
    ChannelStat, HandoffStat, ReaderStat, SourceStat, SourceState, WriterStat, WriterState,
};

use super::Scrape;
use super::exposition::{Kind, Label, Value, introduce, sample};

/// One metric.
pub(super) struct Family {
    pub(super) name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Scrape, &mut Samples<'_>),
}

/// Where a metric's samples go.
pub(super) struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Samples<'_> {
    fn add(&mut self, labels: &[Label<'_>], value: impl Into<Value>) {
        sample(self.text, self.name, labels, value.into());
    }

    /// A sample for each state that is known, and one for the present state if it is another.
    fn states(&mut self, labels: &[Label<'_>], known: &[&str], now: &str) {
        let other = (!known.contains(&now)).then_some(&now);
        for state in known.iter().chain(other) {
            let labels: Vec<Label<'_>> = labels.iter().copied().chain([("state", *state)]).collect();
            self.add(&labels, *state == now);
        }
    }

    fn channels<V: Into<Value>>(&mut self, scrape: &Scrape, value: impl Fn(&ChannelStat) -> Option<V>) {
        for stat in &scrape.channels {
            if let Some(value) = value(stat) {
                self.add(&[("channel", stat.channel.as_str())], value);
            }
        }
    }

    fn writers<V: Into<Value>>(&mut self, scrape: &Scrape, value: impl Fn(&WriterStat) -> V) {
        self.channels(scrape, |stat| stat.writer.as_ref().map(&value));
    }

    fn handoffs<V: Into<Value>>(&mut self, scrape: &Scrape, value: impl Fn(&HandoffStat) -> Option<V>) {
        self.channels(scrape, |stat| stat.handoff.as_ref().and_then(&value));
    }

    fn sources<V: Into<Value>>(&mut self, scrape: &Scrape, value: impl Fn(&SourceStat) -> V) {
        for stat in &scrape.channels {
            if let Some(input) = &stat.input {
                self.add(&[("channel", stat.channel.as_str()), ("kind", input.kind.as_str())], value(input));
            }
        }
    }

    /// What is known only of readers of channels with publish times.
    fn timed<V: Into<Value>>(&mut self, scrape: &Scrape, value: impl Fn(&ReaderStat) -> Option<V>) {
        for (channel, name, reader) in scrape.readers() {
            if let Some(value) = value(reader) {
                self.add(&[("channel", channel), ("reader", name)], value);
            }
        }
    }

    fn readers<V: Into<Value>>(&mut self, scrape: &Scrape, value: impl Fn(&ReaderStat) -> V) {
        for (channel, name, reader) in scrape.readers() {
            self.add(&[("channel", channel), ("reader", name)], value(reader));
        }
    }
}

/// The metrics of a scrape as text. A metric without a sample is left out.
pub(super) fn render(scrape: &Scrape) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let mut samples = String::new();
        (family.samples)(scrape, &mut Samples { text: &mut samples, name: family.name });
        if !samples.is_empty() {
            introduce(&mut text, family.name, family.kind, family.help);
            text += &samples;
        }
    }
    text
}

const READER_STATES: [&str; 5] = ["joining", "reading", "sleeping", "stalled", "evicted"];
const WRITER_STATES: [&str; 2] = ["active", "stalled"];
const SOURCE_STATES: [&str; 13] = [
    "starting",
    "open",
    "awaiting_writer",
    "passing_over",
    "listening",
    "running",
    "draining",
    "restarting",
    "following",
    "awaiting_file",
    "retrying",
    "ended",
    "failed",
];

/// A source's state in one word, without the numbers in it.
fn source_state(state: &SourceState) -> &'static str {
    match state {
        SourceState::Starting => "starting",
        SourceState::Open => "open",
        SourceState::AwaitingWriter => "awaiting_writer",
        SourceState::PassingOver => "passing_over",
        SourceState::Listening { .. } => "listening",
        SourceState::Running { .. } => "running",
        SourceState::Draining { .. } => "draining",
        SourceState::Restarting { .. } => "restarting",
        SourceState::Following => "following",
        SourceState::AwaitingFile => "awaiting_file",
        SourceState::Retrying => "retrying",
        SourceState::Ended => "ended",
        SourceState::Failed => "failed",
        // A newer daemon's words may hold numbers, which would make a time series of each.
        _ => "other",
    }
}

macro_rules! families {
    ($($kind:ident $name:literal $help:literal $samples:expr;)+) => {
        /// All metrics, in the order in which they are printed.
        pub(super) const FAMILIES: &[Family] =
            &[$(Family { name: $name, kind: Kind::$kind, help: $help, samples: $samples },)+];
    };
}

families! {
    Gauge "shmd_up" "Whether the daemon answered." |s, to| to.add(&[], s.daemon.is_some());
    Gauge "shmd_build_info" "The daemon's version, with the constant value 1." |s, to| {
        if let Some(daemon) = &s.daemon {
            to.add(&[("version", &daemon.version)], true);
        }
    };
    Gauge "shmd_exporter_build_info" "The version of the shmctl that prints the metrics, with the constant value 1." |_, to| {
        to.add(&[("version", env!("CARGO_PKG_VERSION"))], true);
    };
    Gauge "shmd_memory_bytes" "Memory that all segments of the daemon take in /dev/shm." |s, to| {
        if let Some(stat) = s.channels.first() {
            to.add(&[], stat.memory_total);
        }
    };

    Gauge "shmd_channel_info" "Settings of the channel, with the constant value 1." |s, to| {
        for stat in &s.channels {
            let (mode, on_full) = (stat.mode.to_string(), stat.on_full.to_string());
            let source = stat.input.as_ref().map_or("none", |input| input.kind.as_str());
            let channel = stat.channel.as_str();
            to.add(&[("channel", channel), ("mode", &mode), ("on_full", &on_full), ("source", source)], true);
        }
    };
    Gauge "shmd_channel_capacity_bytes" "Capacity in use." |s, to| to.channels(s, |stat| Some(stat.capacity));
    Gauge "shmd_channel_capacity_min_bytes" "Smallest capacity." |s, to| to.channels(s, |stat| Some(stat.min));
    Gauge "shmd_channel_capacity_max_bytes" "Largest capacity." |s, to| to.channels(s, |stat| Some(stat.max));
    Gauge "shmd_channel_capacity_pending_bytes" "Capacity that was asked for and has not taken effect yet." |s, to| {
        to.channels(s, |stat| stat.pending);
    };
    Gauge "shmd_channel_used_bytes" "Bytes that the slowest reader has not read yet." |s, to| {
        to.channels(s, |stat| Some(stat.used));
    };
    Gauge "shmd_channel_retained_bytes" "Bytes that a reader starting at the oldest message would find." |s, to| {
        to.channels(s, |stat| Some(stat.retained));
    };
    Gauge "shmd_channel_reserved_bytes" "Bytes of the data area that have memory behind them." |s, to| {
        to.channels(s, |stat| Some(stat.reserved));
    };
    Gauge "shmd_channel_memory_bytes" "Memory that the segment takes in /dev/shm, its header included." |s, to| {
        to.channels(s, |stat| Some(stat.memory));
    };
    Gauge "shmd_channel_message_max_bytes" "Largest message that the channel takes." |s, to| {
        to.channels(s, |stat| Some(stat.max_message));
    };
    Counter "shmd_channel_messages_total" "Messages published." |s, to| to.channels(s, |stat| Some(stat.messages));
    Counter "shmd_channel_bytes_total" "Payload bytes published." |s, to| to.channels(s, |stat| Some(stat.bytes));
    Counter "shmd_channel_dropped_messages_total" "Messages dropped because the channel was full." |s, to| {
        to.channels(s, |stat| Some(stat.dropped));
    };
    Counter "shmd_channel_overwritten_messages_total" "Messages overwritten before every attached reader had read them." |s, to| {
        to.channels(s, |stat| Some(stat.overwritten));
    };
    Counter "shmd_channel_evictions_total" "Readers evicted." |s, to| to.channels(s, |stat| Some(stat.evicted));
    Counter "shmd_channel_resizes_total" "Growths and shrinks that took effect." |s, to| {
        to.channels(s, |stat| Some(stat.resizes));
    };
    Gauge "shmd_channel_readers" "Readers attached." |s, to| to.channels(s, |stat| Some(stat.readers.len()));
    Gauge "shmd_channel_readers_max" "Most readers at a time." |s, to| {
        to.channels(s, |stat| Some(u64::from(stat.max_readers)));
    };

    Gauge "shmd_writer_present" "Whether a writer holds the writer role." |s, to| {
        to.channels(s, |stat| Some(stat.writer.is_some()));
    };
    Gauge "shmd_writer_state" "1 for the state of the present writer, 0 for the other states." |s, to| {
        for stat in &s.channels {
            if let Some(writer) = &stat.writer {
                to.states(&[("channel", stat.channel.as_str())], &WRITER_STATES, WriterState::as_str(&writer.state));
            }
        }
    };
    Gauge "shmd_writer_last_seen_age_seconds" "Time since the writer's last sign of life." |s, to| {
        to.writers(s, |writer| Value::Millis(writer.heartbeat_ms));
    };

    Gauge "shmd_source_state" "1 for the state of the channel's source, 0 for the other states." |s, to| {
        for stat in &s.channels {
            if let Some(input) = &stat.input {
                let labels = [("channel", stat.channel.as_str()), ("kind", input.kind.as_str())];
                to.states(&labels, &SOURCE_STATES, source_state(&input.state));
            }
        }
    };
    Counter "shmd_source_messages_total" "Messages that the source published, with those dropped because the channel was full." |s, to| {
        to.sources(s, |input| input.messages);
    };
    Counter "shmd_source_bytes_total" "Bytes that the source read." |s, to| to.sources(s, |input| input.bytes);
    Counter "shmd_source_errors_total" "Inputs refused, failed attempts to open or start, and failed runs of a child." |s, to| {
        to.sources(s, |input| input.errors);
    };

    Gauge "shmd_handoff_offered_message_bytes" "Size of the message on offer." |s, to| to.handoffs(s, |it| it.on_offer);
    Gauge "shmd_handoff_offered_message_age_seconds" "Time for which the message has been on offer." |s, to| {
        to.handoffs(s, |it| it.on_offer_ms.map(Value::Millis));
    };
    Gauge "shmd_handoff_acknowledgement_age_seconds" "Time since the last acknowledgement." |s, to| {
        to.handoffs(s, |it| it.last_ack_ms.map(Value::Millis));
    };
    Gauge "shmd_handoff_stalled" "Whether the message on offer has waited for longer than stalled_after." |s, to| {
        to.handoffs(s, |it| Some(it.stalled));
    };
    Counter "shmd_handoff_offered_again_messages_total" "Messages offered again because they were not acknowledged." |s, to| {
        to.handoffs(s, |it| Some(it.offered_again));
    };
    Counter "shmd_handoff_mutex_recoveries_total" "Times that the mutex of a dead peer was recovered." |s, to| {
        to.handoffs(s, |it| Some(it.recovered));
    };
    Counter "shmd_handoff_mutex_repairs_total" "Times that the mutex had to be initialised again." |s, to| {
        to.handoffs(s, |it| Some(it.repaired));
    };
    Counter "shmd_handoff_stray_posts_total" "Posts of the semaphores that belonged to no message." |s, to| {
        to.handoffs(s, |it| Some(it.stray_posts));
    };

    Gauge "shmd_reader_lag_messages" "Messages that the reader has not read yet." |s, to| {
        to.readers(s, |reader| reader.lag_messages);
    };
    Gauge "shmd_reader_lag_bytes" "Bytes that the reader has not read yet, record headers included." |s, to| {
        to.readers(s, |reader| reader.lag_bytes);
    };
    Counter "shmd_reader_received_messages_total" "Messages that the reader has read." |s, to| {
        to.readers(s, |reader| reader.received);
    };
    Counter "shmd_reader_lost_messages_total" "Messages that the reader lost to overwriting." |s, to| {
        to.readers(s, |reader| reader.lost);
    };
    Gauge "shmd_reader_state" "1 for the state of the reader, 0 for the other states." |s, to| {
        for (channel, name, reader) in s.readers() {
            to.states(&[("channel", channel), ("reader", name)], &READER_STATES, reader.state.as_str());
        }
    };
    Gauge "shmd_reader_oldest_unread_age_seconds" "In channels with publish times: time since the oldest message was published that the reader has not read; 0 if it has read everything." |s, to| {
        to.timed(s, |reader| {
            // A reader that still stands in a former segment is behind, and nobody knows how long.
            let has_read_all = reader.lag_messages == 0 && reader.latency.is_some();
            reader.oldest_unread_ns.or(has_read_all.then_some(0)).map(Value::Nanos)
        });
    };
    Counter "shmd_reader_timed_messages_total" "In channels with publish times: messages whose latency the reader has measured." |s, to| {
        to.timed(s, |reader| reader.latency.map(|all| all.messages));
    };
    Gauge "shmd_reader_latency_seconds" "In channels with publish times: the time from publishing to receiving that this part of the messages did not exceed since the reader attached." |s, to| {
        for (channel, name, reader) in s.readers() {
            let Some(all) = reader.latency else { continue };
            for (part, ns) in [("0.5", all.p50_ns), ("0.9", all.p90_ns), ("0.99", all.p99_ns), ("1", all.max_ns)] {
                to.add(&[("channel", channel), ("reader", name), ("quantile", part)], Value::Nanos(ns));
            }
        }
    };
    Gauge "shmd_reader_last_seen_age_seconds" "Time since the reader's last sign of life." |s, to| {
        to.readers(s, |reader| Value::Millis(reader.heartbeat_ms));
    };
}

#[cfg(test)]
#[path = "families_tests.rs"]
mod tests;
