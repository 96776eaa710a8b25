//! What is measured: cases as data, made from the options by a pure function.

use std::fmt;

use serde::{Deserialize, Serialize};
use shm_proto::Bytes;

/// What a case is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Messages per second, sent as fast as possible.
    Throughput,
    /// One-way time of single messages.
    Latency,
    /// One-way time of messages that are due at a fixed rate, whether or not the one before has been sent.
    Rate,
    /// Bytes from a producer's pipe to programs that write them out: `shmd` and `shmctl read`, or `cat`.
    Pipeline,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
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
    /// Publish and subscribe of iceoryx2.
    #[cfg(feature = "peers")]
    Iceoryx2,
    /// A ring of ringfire.
    #[cfg(feature = "peers")]
    Ringfire,
    /// A bounded `PodBus` of crossbar.
    #[cfg(feature = "peers")]
    Crossbar,
    /// Sockets of ZeroMQ over Unix sockets.
    #[cfg(feature = "peers")]
    #[serde(rename = "zeromq")]
    ZeroMq,
}

/// How the writer makes a message in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// Copied in from a buffer.
    Copy,
    /// Written in place.
    InPlace,
}

/// How a reader waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Polls without a pause, and needs a processor for itself.
    Busy,
    /// Sleeps until it is woken.
    Sleep,
}

/// One thing to be measured, several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub measure: Measure,
    pub transport: Transport,
    pub size_bytes: u64,
    pub readers: u32,
    /// Messages that become visible together; 1: each by itself.
    pub batch: u32,
    pub fill: Fill,
    pub wait: Wait,
    /// The capacity of the channel; pipes and sockets have what the kernel gives them.
    pub capacity_bytes: u64,
}

impl Case {
    /// Whether both cases are the same work for different transports.
    pub fn is_row_of(&self, other: &Case) -> bool {
        let key = |case: &Case| (case.measure, case.size_bytes, case.readers, case.batch, case.wait);
        key(self) == key(other)
    }

    /// A case with one reader that sleeps, and messages that are copied one by one.
    pub fn new(measure: Measure, transport: Transport, size_bytes: u64, capacity_bytes: u64) -> Self {
        let (fill, wait) = (Fill::Copy, Wait::Sleep);
        Case { measure, transport, size_bytes, readers: 1, batch: 1, fill, wait, capacity_bytes }
    }

    /// Writer and readers.
    pub fn processes(&self) -> usize {
        self.readers as usize + 1
    }

    /// Whether this is a round trip with a reader that polls without a pause.
    pub fn is_busy(&self) -> bool {
        self.measure == Measure::Latency && self.wait == Wait::Busy
    }

    /// Whether the reader polls without a pause: in a round trip, and wherever else it was asked for.
    pub fn polls(&self) -> bool {
        matches!(self.measure, Measure::Latency | Measure::Rate) && self.wait == Wait::Busy
    }

    /// The transport's name in this case.
    pub fn carrier(&self) -> &'static str {
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
            #[cfg(feature = "peers")]
            (Transport::Iceoryx2, ..) => "iceoryx2",
            #[cfg(feature = "peers")]
            (Transport::Ringfire, ..) => "ringfire",
            #[cfg(feature = "peers")]
            (Transport::Crossbar, ..) => "crossbar",
            #[cfg(feature = "peers")]
            (Transport::ZeroMq, ..) => "zeromq",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readers = if self.readers == 1 { "reader" } else { "readers" };
        let measure = match self.measure {
            Measure::Throughput => "throughput",
            Measure::Latency => "latency",
            Measure::Rate => "rate",
            Measure::Pipeline => "pipeline",
        };
        write!(f, "{measure}, {}, {}, {} {readers}", self.carrier(), Bytes(self.size_bytes), self.readers)
    }
}

/// What the user asked for, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub measures: Vec<Measure>,
    pub sizes: Vec<u64>,
    pub readers: Vec<u32>,
    pub batches: Vec<u32>,
    pub fill: Fill,
    pub waits: Vec<Wait>,
    /// The size of messages for latency.
    pub latency_size: u64,
    pub capacity: Option<u64>,
    /// Whether to measure pipe, socket and limit beside the ring.
    pub compare: bool,
}

/// The smallest message: its number and marks.
pub const SMALLEST: u64 = 8;
/// The smallest message for latency, which may also carry the time.
pub const SMALLEST_TIMED: u64 = 16;
/// The smallest capacity for throughput: the daemon's default.
const USUAL_CAPACITY: u64 = Bytes::MIB;
/// Latency is measured in channels that stay in a processor's second cache.
pub const LATENCY_CAPACITY: u64 = 256 * Bytes::KIB;
/// Bytes that a pipeline's producer writes at a time, and the daemon's chunks.
pub const CHUNK: u64 = 64 * Bytes::KIB;

/// All cases that the user asked for. Cases of the same work follow each other.
pub fn cases(wish: &Wish) -> Vec<Case> {
    let mut cases = Vec::new();
    for &measure in &wish.measures {
        match measure {
            Measure::Throughput => throughput(wish, &mut cases),
            Measure::Latency => latency(wish, &mut cases),
            // Which rate it is to be follows from what was measured before: see `rate`.
            Measure::Rate => {}
            Measure::Pipeline => pipeline(wish, &mut cases),
        }
    }
    cases
}

/// A channel for large messages has room for this many,
const AMPLE: u64 = 32;
/// up to this capacity, because a larger ring leaves the caches.
const AMPLE_CAPACITY: u64 = 8 * Bytes::MIB;

/// Room for at least four messages or batches.
pub fn capacity_for(size: u64, batch: u32) -> u64 {
    let least = size.saturating_mul(u64::from(batch.max(1))).saturating_mul(4);
    let ample = size.saturating_mul(AMPLE).clamp(USUAL_CAPACITY, AMPLE_CAPACITY);
    least.max(ample).checked_next_power_of_two().unwrap_or(u64::MAX)
}

/// Room for at least four messages.
fn latency_capacity(size: u64) -> u64 {
    size.saturating_mul(4).checked_next_power_of_two().unwrap_or(u64::MAX).max(LATENCY_CAPACITY)
}

fn transports(wish: &Wish) -> &'static [Transport] {
    let all = &[Transport::Ring, Transport::Pipe, Transport::Socket, Transport::Limit];
    if wish.compare { all } else { &all[..1] }
}

/// Larger messages gain nothing from batches.
const LARGEST_IN_BATCH: u64 = 4 * Bytes::KIB;

fn throughput(wish: &Wish, cases: &mut Vec<Case>) {
    for &size_bytes in &wish.sizes {
        for &readers in &wish.readers {
            for &batch in &wish.batches {
                if batch > 1 && size_bytes > LARGEST_IN_BATCH && wish.batches.len() > 1 {
                    continue;
                }
                let capacity_bytes = wish.capacity.unwrap_or_else(|| capacity_for(size_bytes, batch));
                cases.extend(transports(wish).iter().map(|&transport| {
                    let fill = if transport == Transport::Ring { wish.fill } else { Fill::Copy };
                    let case = Case::new(Measure::Throughput, transport, size_bytes, capacity_bytes);
                    Case { readers, batch, fill, ..case }
                }));
            }
        }
    }
}

fn latency(wish: &Wish, cases: &mut Vec<Case>) {
    for &wait in &wish.waits {
        let capacity = wish.capacity.unwrap_or_else(|| latency_capacity(wish.latency_size));
        let case = |&transport| Case::new(Measure::Latency, transport, wish.latency_size, capacity);
        cases.extend(transports(wish).iter().map(case).map(|case| Case { wait, ..case }));
    }
}

fn pipeline(wish: &Wish, cases: &mut Vec<Case>) {
    for &readers in &wish.readers {
        let all = &[Transport::Ring, Transport::Lent, Transport::Pipe];
        let transports = if wish.compare { all } else { &all[..2] };
        let capacity = wish.capacity.unwrap_or_else(|| capacity_for(CHUNK, 1));
        let case = |&transport| Case::new(Measure::Pipeline, transport, CHUNK, capacity);
        cases.extend(transports.iter().map(case).map(|case| Case { readers, fill: Fill::InPlace, ..case }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
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
