//! Speed over the size of messages, the number of readers, and the capacity.

use std::time::Duration;

use nix::sys::statvfs::statvfs;
use shm_bench::Result;
use shm_bench::daemon::Stage;
use shm_bench::figures::{gigabytes, short};
use shm_bench::host::allowed_cpus;
use shm_bench::measure::{self, Settings};
use shm_bench::outcome::Outcome;
use shm_bench::plan::{Case, Measure, Transport, capacity_for};
use shm_proto::{Bytes, Error};

use super::Sweep;
use super::usage::mebibytes;
use crate::page::Page;

/// The size of messages if something else grows.
const USUAL_SIZE: u64 = Bytes::KIB;

fn case(transport: Transport, size_bytes: u64, readers: u32) -> Case {
    Case { readers, ..Case::new(Measure::Throughput, transport, size_bytes, capacity_for(size_bytes, 1)) }
}

/// How long the daemon took to start, and the outcomes of the cases.
type Step = (Duration, Vec<Outcome>);

/// Measures cases of one capacity, with a daemon of their own.
fn measure(sweep: Sweep<'_>, cases: &[Case]) -> Result<Step> {
    let settings = Settings::of(Duration::from_millis(sweep.choose(10, 300)));
    let stage = Stage::private(cases)?;
    let start_up = if let Stage::Private(daemon) = &stage { daemon.start_up } else { Duration::ZERO };
    let runs = sweep.choose(1, 3);
    let (outcomes, _) = measure::all(&stage, cases, runs, &settings, sweep.stop, |case| crate::step(case))?;
    sweep.stop.check()?;
    Ok((start_up, outcomes))
}

pub(super) fn size(sweep: Sweep<'_>) -> Result<Page> {
    let sizes: Vec<u64> = sweep.choose(vec![8, 65_536], (3..=24).map(|power| 1 << power).collect());
    let transports = [Transport::Ring, Transport::Pipe, Transport::Socket, Transport::Limit];
    let mut page = Page {
        file: "size.svg",
        title: "Size of messages",
        method:
            "One writer, one reader, published one by one, copied in and added up where they lie. The capacity is room \
                 for 32 messages to 8 MiB, for 4 beyond, 1 MiB or more."
                .to_owned(),
        columns: vec!["size", "shmd, messages", "shmd", "pipe", "socket", "slots"],
        x_label: "bytes in a message",
        y_label: "GB/s",
        ..Page::default()
    };
    for size in sizes {
        let (_, outcomes) = measure(sweep, &transports.map(|transport| case(transport, size, 1)))?;
        let mut row = vec![Bytes(size).to_string()];
        row.extend(outcomes.first().map(|ring| rate(ring.messages_per_s)));
        row.extend(outcomes.iter().map(|outcome| gigabytes(outcome.bytes_per_s)));
        page.rows.push(row);
        for outcome in &outcomes {
            page.point(outcome.carrier, size as f64, outcome.bytes_per_s / 1e9);
        }
    }
    Ok(page)
}

pub(super) fn readers(sweep: Sweep<'_>) -> Result<Page> {
    let counts: Vec<u32> = sweep.choose(vec![1, 4], vec![1, 2, 4, 8, 16, 32, 64]);
    let transports = [Transport::Ring, Transport::Pipe, Transport::Socket];
    let mut page = Page {
        file: "readers.svg",
        title: "Readers",
        method: format!(
            "Messages of {}, published one by one; every reader receives every message. On {} processors: what more readers \
             cost is mostly their own work.",
            Bytes(USUAL_SIZE),
            allowed_cpus().len()
        ),
        columns: vec!["readers", "shmd", "pipes", "sockets", "shmd, all readers together"],
        x_label: "readers",
        y_label: "messages a second, to each reader",
        ..Page::default()
    };
    for readers in counts {
        let (_, outcomes) = measure(sweep, &transports.map(|transport| case(transport, USUAL_SIZE, readers)))?;
        let mut row = vec![readers.to_string()];
        row.extend(outcomes.iter().map(|outcome| rate(outcome.messages_per_s)));
        row.extend(outcomes.first().map(|ring| rate(ring.messages_per_s * f64::from(readers))));
        page.rows.push(row);
        for outcome in &outcomes {
            page.point(outcome.carrier, f64::from(readers), outcome.messages_per_s);
        }
    }
    Ok(page)
}

pub(super) fn capacity(sweep: Sweep<'_>) -> Result<Page> {
    let capacities: Vec<u64> =
        sweep.choose(vec![16, 24], (16..=33).collect()).into_iter().map(|power| 1 << power).collect();
    let mut page = Page {
        file: "capacity.svg",
        title: "Capacity",
        method: format!(
            "Messages of {}, one writer, one reader, published one by one, after the whole capacity has been written and read \
             once.",
            Bytes(USUAL_SIZE)
        ),
        columns: vec!["capacity", "start of the daemon", "messages", "throughput"],
        x_label: "bytes of capacity",
        y_label: "GB/s",
        ..Page::default()
    };
    for capacity in capacities {
        let free = free()?;
        // Some memory is left for other programs.
        if capacity + free / 4 > free {
            page.notes.push(format!("{}: not measured, {} of /dev/shm are free.", Bytes(capacity), mebibytes(free)));
            continue;
        }
        let case = Case { capacity_bytes: capacity, ..case(Transport::Ring, USUAL_SIZE, 1) };
        let (start_up, outcomes) = measure(sweep, &[case])?;
        if let Some(ring) = outcomes.first() {
            page.rows.push(vec![
                Bytes(capacity).to_string(),
                format!("{:.1} ms", start_up.as_secs_f64() * 1e3),
                rate(ring.messages_per_s),
                gigabytes(ring.bytes_per_s),
            ]);
            page.point("shmd", capacity as f64, ring.bytes_per_s / 1e9);
        }
    }
    Ok(page)
}

fn rate(messages_per_s: f64) -> String {
    format!("{}/s", short(messages_per_s))
}

/// Free bytes in `/dev/shm`.
fn free() -> Result<u64> {
    let vfs = statvfs("/dev/shm").map_err(|e| Error::system("look how much of /dev/shm is free", e))?;
    Ok(vfs.blocks_available() * vfs.fragment_size())
}
