//! What is compared: the rows, and who takes part in each of them.

use shm_bench::outcome::Outcome;
use shm_bench::plan::{Case, LATENCY_CAPACITY, Measure, Transport, Wait};
use shm_proto::Bytes;

/// Something that carries messages.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) transport: Transport,
}

const fn named(name: &'static str, transport: Transport) -> Peer {
    Peer { name, transport }
}

/// In the order of the columns.
pub(crate) const PEERS: [Peer; 7] = [
    named("shmd", Transport::Ring),
    named("iceoryx2", Transport::Iceoryx2),
    named("ringfire", Transport::Ringfire),
    named("crossbar", Transport::Crossbar),
    named("zeromq", Transport::ZeroMq),
    named("socket", Transport::Socket),
    named("pipe", Transport::Pipe),
];

/// The peer of this name.
pub(crate) fn peer(name: &str) -> Result<&'static Peer, String> {
    let found = const { &PEERS }.iter().find(|peer| peer.name == name);
    found.ok_or_else(|| {
        format!("there is no {name}; the carriers are {}", PEERS.each_ref().map(|peer| peer.name).join(", "))
    })
}

/// One work for all of them.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// That of shmd.
    pub(crate) case: Case,
}

impl Row {
    fn new(case: Case) -> Self {
        let size = case.size_bytes;
        let size = if size < Bytes::KIB { format!("{size}B") } else { Bytes(size).to_string() };
        let readers = if case.readers == 1 { "1 reader".to_owned() } else { format!("{} readers", case.readers) };
        let name = match (case.measure, case.wait) {
            (Measure::Latency, Wait::Busy) => format!("{size} latency, busy reader"),
            (Measure::Latency, Wait::Sleep) => format!("{size} latency, sleeping reader"),
            (Measure::Rate, _) => format!("{size} rate within 10us"),
            _ if case.batch > 1 => format!("{size} to {readers}, batches of {}", case.batch),
            _ => format!("{size} to {readers}, one by one"),
        };
        Row { name, case }
    }

    /// Whether one of the words is in the name; without words every row is wanted.
    pub(crate) fn is_named(&self, words: &[String]) -> bool {
        words.is_empty() || words.iter().any(|word| self.name.contains(word.as_str()))
    }

    /// The case of another carrier, if it can do the work.
    pub(crate) fn of(&self, peer: &Peer) -> Option<Case> {
        let (batched, sleeps) =
            (self.case.batch > 1, self.case.measure == Measure::Latency && self.case.wait == Wait::Sleep);
        let can = match peer.transport {
            // Both send messages one by one.
            Transport::Iceoryx2 | Transport::ZeroMq => !batched,
            // So does this one. Its readers cannot sleep, and its large messages cannot be compiled.
            Transport::Crossbar => !batched && !sleeps && self.case.size_bytes <= Bytes::KIB,
            _ => true,
        };
        can.then_some(Case { transport: peer.transport, ..self.case })
    }

    /// What was measured of this carrier.
    pub(crate) fn outcome<'a>(&self, peer: &Peer, results: &'a [Outcome]) -> Option<&'a Outcome> {
        results.iter().find(|outcome| outcome.case.transport == peer.transport && outcome.case.is_row_of(&self.case))
    }
}

/// Room for messages on their way that stays in a second-level cache, and for the largest of them.
const CAPACITY: u64 = Bytes::MIB;
const LARGE_CAPACITY: u64 = 8 * Bytes::MIB;

/// Every row, in the order of the tables.
pub(crate) fn all() -> Vec<Row> {
    let throughput = |size: u64, readers, batch| {
        let capacity = if size < Bytes::MIB { CAPACITY } else { LARGE_CAPACITY };
        Case { readers, batch, ..Case::new(Measure::Throughput, Transport::Ring, size, capacity) }
    };
    let timed = |measure, size, wait| Case { wait, ..Case::new(measure, Transport::Ring, size, LATENCY_CAPACITY) };
    let cases = [
        throughput(8, 1, 1),
        throughput(64, 1, 1),
        throughput(Bytes::KIB, 1, 1),
        throughput(64 * Bytes::KIB, 1, 1),
        throughput(Bytes::MIB, 1, 1),
        throughput(64, 1, 64),
        throughput(Bytes::KIB, 1, 64),
        throughput(Bytes::KIB, 4, 1),
        throughput(64 * Bytes::KIB, 4, 1),
        timed(Measure::Latency, 8, Wait::Busy),
        timed(Measure::Latency, 64, Wait::Busy),
        timed(Measure::Latency, 64, Wait::Sleep),
        timed(Measure::Rate, 64, Wait::Busy),
        timed(Measure::Rate, Bytes::KIB, Wait::Busy),
    ];
    cases.map(Row::new).into()
}

/// Every case except those of rates, which are searched afterwards. Cases of the same work follow each other.
pub(crate) fn cases(rows: &[Row], peers: &[&Peer]) -> Vec<Case> {
    let measured = rows.iter().filter(|row| row.case.measure != Measure::Rate);
    measured.flat_map(|row| peers.iter().filter_map(|peer| row.of(peer))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_can_be_chosen() {
        let rows = all();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names.len(), rows.len(), "{names:?}");
        let chosen = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            rows.iter().filter(|row| row.is_named(&words)).count()
        };
        assert_eq!(chosen(&[]), rows.len());
        assert_eq!(
            (chosen(&["latency"]), chosen(&["batches"]), chosen(&["rate"]), chosen(&["8B", "1MiB"])),
            (3, 2, 2, 3)
        );
    }

    #[test]
    fn everybody_takes_part_in_what_it_can_do() {
        let peers: Vec<&Peer> = PEERS.iter().collect();
        let of =
            |name| cases(&all(), &peers).iter().filter(|case| case.transport == peer(name).unwrap().transport).count();
        assert_eq!(
            ["shmd", "ringfire", "socket", "pipe", "iceoryx2", "zeromq", "crossbar"].map(of),
            [12, 12, 12, 12, 10, 10, 6]
        );
        assert!(peer("aeron").unwrap_err().contains("the carriers are shmd, iceoryx2"));
    }
}
