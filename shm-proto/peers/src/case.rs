//! What is compared.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Library {
    ShmProto,
    Iceoryx2,
    Ringfire,
    Pipe,
}

impl Library {
    pub const ALL: [Library; 4] = [Library::ShmProto, Library::Iceoryx2, Library::Ringfire, Library::Pipe];

    /// Whether the library has what the case asks for.
    pub fn can(self, case: &Case) -> bool {
        // iceoryx2 sends single samples.
        self != Library::Iceoryx2 || case.batch == 1
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Library::ShmProto => "shm-proto",
            Library::Iceoryx2 => "iceoryx2",
            Library::Ringfire => "ringfire",
            Library::Pipe => "pipe",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Messages in a time.
    Throughput,
    /// Half of a round trip; both sides look for messages without a pause.
    Busy,
    /// From just before sending to just after receiving; the reader sleeps in between.
    Sleeping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    pub measure: Measure,
    pub size_bytes: usize,
    pub readers: u32,
    /// Messages that are sent together, and may be received together.
    pub batch: usize,
    /// Memory for messages on their way.
    pub capacity_bytes: usize,
}

impl Case {
    pub fn processes(&self) -> usize {
        self.readers as usize + 1
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.size_bytes {
            size if size.is_multiple_of(1024) => format!("{} KiB", size / 1024),
            size => format!("{size} B"),
        };
        match self.measure {
            Measure::Throughput => {
                write!(f, "{size}, {} reader{}", self.readers, if self.readers == 1 { "" } else { "s" })?;
                if self.batch > 1 { write!(f, ", batches of {}", self.batch) } else { write!(f, ", one by one") }
            }
            Measure::Busy => write!(f, "{size}, busy reader"),
            Measure::Sleeping => write!(f, "{size}, sleeping reader"),
        }
    }
}

/// All cases; throughput with so much memory for messages on their way.
pub fn cases(capacity_bytes: usize) -> Vec<Case> {
    let throughput =
        |size_bytes, readers, batch| Case { measure: Measure::Throughput, size_bytes, readers, batch, capacity_bytes };
    let latency = |measure| Case { measure, size_bytes: 64, readers: 1, batch: 1, capacity_bytes: 256 << 10 };
    vec![
        throughput(64, 1, 1),
        throughput(64, 1, 64),
        throughput(1024, 1, 1),
        throughput(1024, 1, 64),
        throughput(65_536, 1, 1),
        throughput(1024, 4, 1),
        latency(Measure::Busy),
        latency(Measure::Sleeping),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Writer,
    /// Which one, from 0.
    Reader(u32),
}

/// What a process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub library: Library,
    pub case: Case,
    pub role: Role,
    pub cpu: Option<usize>,
    /// There are fewer processors than processes: whoever waits lets others run.
    pub crowded: bool,
    /// A directory of this run's own.
    pub dir: PathBuf,
    /// Begins the names of objects in `/dev/shm`.
    pub prefix: String,
    pub warm_up_ns: u64,
    pub duration_ns: u64,
}

/// What a process has measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub messages: u64,
    pub elapsed_ns: u64,
    pub latency: Option<Latency>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub p50_ns: u64,
    pub p99_ns: u64,
}
