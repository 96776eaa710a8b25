//! Speed over the size of messages, the number of readers, and the capacity.

use std::time::Duration;

use nix::sys::statvfs::statvfs;
use shm_proto::{Bytes, Error};

use super::page::Page;
use super::{Progress, Sweep};
use crate::commands::bench::crew::Interruptible;
use crate::commands::bench::host::allowed_cpus;
use crate::commands::bench::measure::{self, Settings};
use crate::commands::bench::outcome::Outcome;
use crate::commands::bench::plan::{Case, Fill, Measure, Transport, Wait, capacity_for};
use crate::commands::bench::report::gigabytes;
use crate::commands::bench::stage::Stage;
use crate::error::Result;
use crate::human;

/// Of the messages where something else grows.
const USUAL_SIZE: u64 = Bytes::KIB;

fn case(transport: Transport, size_bytes: u64, readers: u32) -> Case {
    Case {
        measure: Measure::Throughput,
        transport,
        size_bytes,
        readers,
        batch: 1,
        fill: Fill::Copy,
        wait: Wait::Sleep,
        capacity_bytes: capacity_for(size_bytes, 1),
    }
}

fn settings(sweep: &Sweep<'_>) -> Settings {
    Settings {
        warm_up: Duration::from_millis(sweep.choose(5, 50)),
        duration: Duration::from_millis(sweep.choose(10, 300)),
        messages: None,
        pace: Duration::ZERO,
        cpus: None,
        allowed: allowed_cpus(),
    }
}

/// How long the daemon took to start, and what came of the cases.
type Step = (Duration, Vec<Outcome>);

/// Measures cases of one capacity, with a daemon of their own.
fn measure(sweep: &mut Sweep<'_>, cases: &[Case]) -> Result<Interruptible<Step>> {
    let settings = settings(sweep);
    let capacity = cases.first().map_or(Bytes::MIB, |case| case.capacity_bytes);
    let stage = Stage::private(&[capacity], None)?;
    let start_up = if let Stage::Private(daemon) = &stage { daemon.start_up } else { Duration::ZERO };
    let mut samples = vec![Vec::new(); cases.len()];
    for _ in 0..sweep.choose(1, 3) {
        for (case, samples) in cases.iter().zip(&mut samples) {
            sweep.progress.step(&case.to_string());
            match measure::run(&stage, case, &settings, sweep.signals)? {
                Some(sample) => samples.push(sample),
                None => return Ok(None),
            }
        }
    }
    let outcomes = cases.iter().zip(&samples).filter_map(|(case, samples)| Outcome::of(*case, samples)).collect();
    Ok(Some((start_up, outcomes)))
}

/// Cases of each step, three runs each.
fn steps(sweep: &Sweep<'_>, steps: usize, cases: usize) -> Progress {
    Progress::new(steps * cases * sweep.choose(1, 3))
}

pub(super) fn size(sweep: &mut Sweep<'_>) -> Result<Interruptible<Page>> {
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
    sweep.progress = steps(sweep, sizes.len(), transports.len());
    for size in sizes {
        let Some((_, outcomes)) = measure(sweep, &transports.map(|transport| case(transport, size, 1)))? else {
            return Ok(None);
        };
        let mut row = vec![Bytes(size).to_string()];
        row.extend(outcomes.first().map(|ring| human::per_second(ring.messages_per_s)));
        row.extend(outcomes.iter().map(|outcome| gigabytes(outcome.bytes_per_s)));
        page.rows.push(row);
        for outcome in &outcomes {
            page.point(outcome.carrier, size as f64, outcome.bytes_per_s / 1e9);
        }
    }
    Ok(Some(page))
}

pub(super) fn readers(sweep: &mut Sweep<'_>) -> Result<Interruptible<Page>> {
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
    sweep.progress = steps(sweep, counts.len(), transports.len());
    for readers in counts {
        let Some((_, outcomes)) = measure(sweep, &transports.map(|transport| case(transport, USUAL_SIZE, readers)))?
        else {
            return Ok(None);
        };
        let mut row = vec![readers.to_string()];
        row.extend(outcomes.iter().map(|outcome| human::per_second(outcome.messages_per_s)));
        row.extend(outcomes.first().map(|ring| human::per_second(ring.messages_per_s * f64::from(readers))));
        page.rows.push(row);
        for outcome in &outcomes {
            page.point(outcome.carrier, f64::from(readers), outcome.messages_per_s);
        }
    }
    Ok(Some(page))
}

pub(super) fn capacity(sweep: &mut Sweep<'_>) -> Result<Interruptible<Page>> {
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
    sweep.progress = steps(sweep, capacities.len(), 1);
    for capacity in capacities {
        let free = free()?;
        // Something is left for the others.
        if capacity + free / 4 > free {
            page.notes.push(format!("{}: not measured, {} of /dev/shm are free.", Bytes(capacity), human::bytes(free)));
            continue;
        }
        let case = Case { capacity_bytes: capacity, ..case(Transport::Ring, USUAL_SIZE, 1) };
        let Some((start_up, outcomes)) = measure(sweep, &[case])? else { return Ok(None) };
        if let Some(ring) = outcomes.first() {
            page.rows.push(vec![
                Bytes(capacity).to_string(),
                format!("{:.1} ms", start_up.as_secs_f64() * 1e3),
                human::per_second(ring.messages_per_s),
                gigabytes(ring.bytes_per_s),
            ]);
            page.point("shmd", capacity as f64, ring.bytes_per_s / 1e9);
        }
    }
    Ok(Some(page))
}

/// Bytes that can still be had in `/dev/shm`.
fn free() -> Result<u64> {
    let vfs = statvfs("/dev/shm").map_err(|e| Error::system("look how much of /dev/shm is free", e))?;
    Ok(vfs.blocks_available() * vfs.fragment_size())
}
