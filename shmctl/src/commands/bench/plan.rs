//! What is measured: cases as data, made from the options by a pure function.

use std::fmt;

use serde::{Deserialize, Serialize};
use shm_proto::Bytes;

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Measure {
    /// Messages a second, as fast as they go.
    Throughput,
    /// One-way time of single messages.
    Latency,
    /// Bytes from a producer's pipe to programs that write them out: `shmd` and `shmctl read`, or `cat`.
    Pipeline,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Transport {
    /// A channel of shmd. In a pipeline the daemon itself reads what the producer writes.
    Ring,
    /// The same where `shmctl write` reads what the producer writes, and has borrowed the writer role for it. In a pipeline
    /// alone: elsewhere the role is always lent.
    Lent,
    /// A pipe for each reader; in a pipeline `cat`, or `tee` and a `cat` for each reader.
    Pipe,
    /// A Unix stream socket for each reader.
    Socket,
    /// The least that the processes need for it: fixed slots, two cache lines, or a semaphore.
    Limit,
}

/// How the writer makes a message in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fill {
    /// Copied in from a buffer.
    Copy,
    /// Written where it is to lie.
    InPlace,
}

/// How a reader waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wait {
    /// Looks again and again, and needs a processor for itself.
    Busy,
    /// Sleeps until it is woken.
    Sleep,
}

/// One thing to be measured, several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Case {
    pub(super) measure: Measure,
    pub(super) transport: Transport,
    pub(super) size_bytes: u64,
    pub(super) readers: u32,
    /// Messages that become visible together; 1: each by itself.
    pub(super) batch: u32,
    pub(super) fill: Fill,
    pub(super) wait: Wait,
    /// Of the channel; the other transports have what the kernel gives them.
    pub(super) capacity_bytes: u64,
}

impl Case {
    /// Whether the two are the same work for different transports.
    pub(super) fn is_row_of(&self, other: &Case) -> bool {
        let key = |case: &Case| (case.measure, case.size_bytes, case.readers, case.batch, case.wait);
        key(self) == key(other)
    }

    /// The transport's name in this case.
    pub(super) fn carrier(&self) -> &'static str {
        match (self.transport, self.measure, self.wait) {
            (Transport::Ring, Measure::Pipeline, _) => "shmd, shmctl read",
            (Transport::Ring, ..) => "shmd",
            (Transport::Lent, ..) => "shmctl write, shmctl read",
            (Transport::Pipe, Measure::Pipeline, _) if self.readers > 1 => "tee, cat",
            (Transport::Pipe, Measure::Pipeline, _) => "cat",
            (Transport::Pipe, ..) => "pipe",
            (Transport::Socket, ..) => "socket",
            (Transport::Limit, Measure::Latency, Wait::Busy) => "two cache lines",
            (Transport::Limit, Measure::Latency, Wait::Sleep) => "semaphore",
            (Transport::Limit, ..) => "slots",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readers = if self.readers == 1 { "reader" } else { "readers" };
        let measure = match self.measure {
            Measure::Throughput => "throughput",
            Measure::Latency => "latency",
            Measure::Pipeline => "pipeline",
        };
        write!(f, "{measure}, {}, {}, {} {readers}", self.carrier(), Bytes(self.size_bytes), self.readers)
    }
}

/// What the user asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) measures: Vec<Measure>,
    pub(super) sizes: Vec<u64>,
    pub(super) readers: Vec<u32>,
    pub(super) batches: Vec<u32>,
    pub(super) fill: Fill,
    pub(super) waits: Vec<Wait>,
    /// Of latency's messages.
    pub(super) latency_size: u64,
    pub(super) capacity: Option<u64>,
    /// Beside the ring: pipe, socket and limit.
    pub(super) compare: bool,
}

/// Bytes that a message holds at least: its number and marks.
pub(super) const SMALLEST: u64 = 8;
/// The same for latency, where it may carry the time it was sent, too.
pub(super) const SMALLEST_TIMED: u64 = 16;
/// What a channel is made with at least: the daemon's own default.
const USUAL_CAPACITY: u64 = Bytes::MIB;
/// Latency is measured in channels that stay in a processor's second cache.
const LATENCY_CAPACITY: u64 = 256 * Bytes::KIB;
/// Bytes that a pipeline's producer writes at a time, and the daemon's chunks.
pub(super) const CHUNK: u64 = 64 * Bytes::KIB;

/// The cases, those of the same work one after the other.
pub(super) fn cases(wish: &Wish) -> Vec<Case> {
    let mut cases = Vec::new();
    for &measure in &wish.measures {
        match measure {
            Measure::Throughput => throughput(wish, &mut cases),
            Measure::Latency => latency(wish, &mut cases),
            Measure::Pipeline => pipeline(wish, &mut cases),
        }
    }
    cases
}

/// Room for so many messages is good for large ones,
const AMPLE: u64 = 32;
/// up to this much; beyond it a ring leaves the caches.
const AMPLE_CAPACITY: u64 = 8 * Bytes::MIB;

/// Room for four messages or batches, and for more while that is not much.
pub(super) fn capacity_for(size: u64, batch: u32) -> u64 {
    let least = size.saturating_mul(u64::from(batch.max(1))).saturating_mul(4);
    let ample = size.saturating_mul(AMPLE).clamp(USUAL_CAPACITY, AMPLE_CAPACITY);
    least.max(ample).checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// Room for four messages, and the usual for small ones.
fn latency_capacity(size: u64) -> u64 {
    size.saturating_mul(4).checked_next_power_of_two().unwrap_or(u64::MAX).max(LATENCY_CAPACITY)
}

fn transports(wish: &Wish) -> &'static [Transport] {
    let all = &[Transport::Ring, Transport::Pipe, Transport::Socket, Transport::Limit];
    if wish.compare { all } else { &all[..1] }
}

/// Batches are for small messages: larger ones gain nothing by them.
const LARGEST_IN_BATCH: u64 = 4 * Bytes::KIB;

fn throughput(wish: &Wish, cases: &mut Vec<Case>) {
    for &size_bytes in &wish.sizes {
        for &readers in &wish.readers {
            for &batch in &wish.batches {
                if batch > 1 && size_bytes > LARGEST_IN_BATCH && wish.batches.len() > 1 {
                    continue;
                }
                let capacity_bytes = wish.capacity.unwrap_or_else(|| capacity_for(size_bytes, batch));
                cases.extend(transports(wish).iter().map(|&transport| Case {
                    measure: Measure::Throughput,
                    transport,
                    size_bytes,
                    readers,
                    batch,
                    fill: if transport == Transport::Ring { wish.fill } else { Fill::Copy },
                    wait: Wait::Sleep,
                    capacity_bytes,
                }));
            }
        }
    }
}

fn latency(wish: &Wish, cases: &mut Vec<Case>) {
    for &wait in &wish.waits {
        cases.extend(transports(wish).iter().map(|&transport| Case {
            measure: Measure::Latency,
            transport,
            size_bytes: wish.latency_size,
            readers: 1,
            batch: 1,
            fill: Fill::Copy,
            wait,
            capacity_bytes: wish.capacity.unwrap_or_else(|| latency_capacity(wish.latency_size)),
        }));
    }
}

fn pipeline(wish: &Wish, cases: &mut Vec<Case>) {
    for &readers in &wish.readers {
        let all = &[Transport::Ring, Transport::Lent, Transport::Pipe];
        let transports = if wish.compare { all } else { &all[..2] };
        cases.extend(transports.iter().map(|&transport| Case {
            measure: Measure::Pipeline,
            transport,
            size_bytes: CHUNK,
            readers,
            batch: 1,
            fill: Fill::InPlace,
            wait: Wait::Sleep,
            capacity_bytes: wish.capacity.unwrap_or_else(|| capacity_for(CHUNK, 1)),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in super::super) fn wish() -> Wish {
        Wish {
            measures: vec![Measure::Throughput, Measure::Latency, Measure::Pipeline],
            sizes: vec![64, 1 << 20],
            readers: vec![1, 4],
            batches: vec![1, 64],
            fill: Fill::InPlace,
            waits: vec![Wait::Busy, Wait::Sleep],
            latency_size: 64,
            capacity: None,
            compare: true,
        }
    }

    #[test]
    fn every_transport_does_the_same_work() {
        let cases = cases(&wish());
        for case in &cases {
            let row: Vec<_> = cases.iter().filter(|other| other.is_row_of(case)).map(|case| case.transport).collect();
            assert_eq!(row.len(), if case.measure == Measure::Pipeline { 3 } else { 4 }, "{case:?}");
        }
        // 64 B with both batches, 1 MiB with one; latency with both ways to wait; two pipelines.
        assert_eq!(cases.len(), 3 * 2 * 4 + 2 * 4 + 2 * 3);
    }

    #[test]
    fn only_the_ring_is_filled_in_place_and_large_messages_are_not_batched() {
        let cases = cases(&wish());
        let throughput = cases.iter().filter(|case| case.measure == Measure::Throughput);
        for case in throughput {
            assert_eq!(case.fill == Fill::InPlace, case.transport == Transport::Ring);
            assert!(case.batch == 1 || case.size_bytes == 64, "{case:?}");
        }
        let asked = super::cases(&Wish { batches: vec![8], measures: vec![Measure::Throughput], ..wish() });
        assert!(asked.iter().all(|case| case.batch == 8), "what was asked for by itself is done");
    }

    #[test]
    fn a_channel_has_room_for_several_messages_and_batches() {
        assert_eq!(capacity_for(64, 1), 1 << 20);
        assert_eq!(capacity_for(64 << 10, 1), 2 << 20);
        assert_eq!(capacity_for(1 << 20, 1), 8 << 20);
        assert_eq!(capacity_for(16 << 20, 1), 64 << 20);
        assert_eq!(capacity_for(4096, 256), 4 << 20);
        assert_eq!(capacity_for(u64::MAX, 9), u64::MAX);
        assert_eq!((latency_capacity(64), latency_capacity(1 << 20)), (256 << 10, 4 << 20));
        let fixed = cases(&Wish { capacity: Some(123), ..wish() });
        assert!(fixed.iter().all(|case| case.capacity_bytes == 123));
    }

    #[test]
    fn without_comparison_there_is_only_the_ring() {
        let cases = cases(&Wish { compare: false, ..wish() });
        let ours = [Transport::Ring, Transport::Lent];
        assert!(!cases.is_empty() && cases.iter().all(|case| ours.contains(&case.transport)));
    }

    #[test]
    fn a_case_survives_its_way_to_a_worker() {
        for case in cases(&wish()) {
            let text = serde_json::to_string(&case).unwrap();
            assert_eq!(serde_json::from_str::<Case>(&text).unwrap(), case);
        }
    }
}
