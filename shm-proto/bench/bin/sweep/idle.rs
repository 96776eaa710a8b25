//! The cost of programs that are attached and have nothing to do.

use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use shm_bench::Result;
use shm_bench::crew::Crew;
use shm_bench::daemon::Setup;
use shm_bench::pipeline::{shmctl, until_attached};
use shm_proto::{Bytes, Error};

use super::Sweep;
use super::usage::{Usage, watch};
use crate::page::Page;

/// A reader polls for a moment before it sleeps, and a daemon that has just started still finishes its start.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) fn run(sweep: Sweep<'_>) -> Result<Page> {
    let counts = sweep.choose(vec![1, 2], vec![1, 4, 16, 64]);
    let watched = Duration::from_millis(sweep.choose(500, 10_000));
    let mut page = Page {
        file: "idle.svg",
        title: "Attached and idle",
        method: format!(
            "A channel, `shmctl write` whose input says nothing, and this many `shmctl read`, asleep: what each process does in {} \
             seconds, in wake-ups a second and of a processor; of the readers, the one that did most.",
            watched.as_secs_f64()
        ),
        columns: vec!["readers", "daemon", "processor", "writer", "processor", "reader", "processor"],
        x_label: "readers",
        y_label: "wake-ups a second",
        ..Page::default()
    };
    for readers in counts {
        crate::step(&format!("{readers} idle readers"));
        let mut setup = Setup::default();
        setup.channel("main", Bytes::MIB, "");
        let daemon = setup.start()?;
        let mut crew = Crew::default();
        // Kept open, because the end of the input would end the writer.
        let (input, _kept) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::system("make a pipe", e))?;
        let mut write = shmctl("write", &daemon)?;
        write.stdin(Stdio::from(input));
        crew.add(write)?;
        for _ in 0..readers {
            crew.add(shmctl("read", &daemon)?)?;
        }
        until_attached(&daemon, readers, sweep.stop)?;
        let pids: Vec<u32> = [daemon.pid()].into_iter().chain(crew.others()).collect();
        let usage = watch(&pids, SETTLE, watched, sweep.stop)?;
        let most = |of: fn(&Usage) -> f64| usage[2..].iter().map(of).fold(0.0, f64::max);
        let reader = Usage { wake_ups_per_s: most(|one| one.wake_ups_per_s), cpu_percent: most(|one| one.cpu_percent) };
        let mut row = vec![readers.to_string()];
        for (name, one) in [("daemon", usage[0]), ("writer", usage[1]), ("reader", reader)] {
            row.extend([format!("{:.1}", one.wake_ups_per_s), format!("{:.3} %", one.cpu_percent)]);
            page.point(name, f64::from(readers), one.wake_ups_per_s);
        }
        page.rows.push(row);
    }
    Ok(page)
}
