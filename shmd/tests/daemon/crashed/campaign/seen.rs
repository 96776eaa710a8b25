//! What a reader has seen of a campaign.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use shm_proto::Reader;

use super::text;
use crate::PATIENCE;

/// Messages that are missing before one that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) run: u64,
    /// The number of the message that came.
    pub(super) before: u64,
    /// By the writer's numbers.
    pub(super) missing: u64,
    /// As the channel reported it.
    pub(super) lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) received: u64,
    /// Reported as lost.
    pub(super) lost: u64,
    /// In each run, the number after the last one that came.
    pub(super) runs: BTreeMap<u64, u64>,
    pub(super) holes: Vec<Hole>,
}

impl Seen {
    fn add(&mut self, bytes: &[u8], lost: u64) {
        let said = String::from_utf8_lossy(bytes);
        let mut words = said.split(' ').map(str::parse);
        let (Some(Ok(run)), Some(Ok(number))) = (words.next(), words.next()) else { panic!("torn: {said:?}") };
        assert_eq!(said, text(run, number), "torn");
        assert!(self.runs.range(run + 1..).next().is_none(), "{said:?} came after {:?}", self.runs.last_key_value());
        let next = self.runs.insert(run, number + 1).unwrap_or(0);
        let missing = number.checked_sub(next).unwrap_or_else(|| panic!("{number} of run {run} came after {next}"));
        if missing > 0 || lost > 0 {
            self.holes.push(Hole { run, before: number, missing, lost });
        }
        (self.received, self.lost) = (self.received + 1, self.lost + lost);
    }
}

/// Reads until the channel is closed.
pub(super) fn read(mut reader: Reader, slow: bool) -> Seen {
    let (mut seen, mut bytes) = (Seen::default(), Vec::new());
    loop {
        let got = match reader.recv_into(&mut bytes, Some(PATIENCE)) {
            Ok(got) => got,
            Err(error) => {
                assert_eq!(error.to_string(), "channel main is closed");
                seen.lost = reader.lost();
                return seen;
            }
        };
        seen.add(&bytes, got.lost_before);
        assert_eq!(got.seq + 1, seen.received + seen.lost, "the sequence numbers go on");
        if slow {
            // Slower than any writer, also on a busy machine.
            thread::sleep(Duration::from_millis(1));
        }
    }
}
