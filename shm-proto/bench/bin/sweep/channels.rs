//! What channels cost a daemon that does nothing: memory, the time to start, wake-ups and processor time.

use std::time::Duration;

use shm_bench::Result;
use shm_bench::daemon::Setup;
use shm_proto::Bytes;

use super::Sweep;
use super::usage::{Usage, mebibytes, memory, threads, watch};
use crate::page::Page;

/// The capacity of each channel.
const CAPACITY: u64 = 64 * Bytes::KIB;
/// A daemon that has just started still finishes its start.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) fn run(sweep: Sweep<'_>) -> Result<Page> {
    let counts = sweep.choose(vec![1, 10], vec![1, 3, 10, 30, 100, 300, 1000]);
    let watched = Duration::from_millis(sweep.choose(500, 10_000));
    let mut page = Page {
        file: "channels.svg",
        title: "Channels in one daemon",
        method: format!(
            "A daemon with this many channels of {} and no program attached: memory after its start (the proportional and the \
             resident size of the process, and what its objects in /dev/shm take), and what it does in {} seconds.",
            Bytes(CAPACITY),
            watched.as_secs_f64()
        ),
        columns: vec!["channels", "start", "PSS", "RSS", "in /dev/shm", "threads", "wake-ups a second", "processor"],
        x_label: "channels",
        y_label: "see the names",
        ..Page::default()
    };
    for channels in counts {
        crate::step(&format!("{channels} channels"));
        let mut setup = Setup::default();
        for n in 0..channels {
            setup.channel(&format!("c{n}"), CAPACITY, "");
        }
        let daemon = setup.start()?;
        let usage = watch(&[daemon.pid()], SETTLE, watched, sweep.stop)?;
        let Usage { wake_ups_per_s: wake_ups, cpu_percent: cpu } = usage[0];
        let (pss, rss) = memory(daemon.pid())?;
        let threads = threads(daemon.pid())?.len();
        let start_ms = daemon.start_up.as_secs_f64() * 1e3;
        page.rows.push(vec![
            channels.to_string(),
            format!("{start_ms:.1} ms"),
            mebibytes(pss),
            mebibytes(rss),
            mebibytes(daemon.shared_bytes()),
            threads.to_string(),
            format!("{wake_ups:.1}"),
            format!("{cpu:.3} %"),
        ]);
        let n = f64::from(channels);
        page.point("start, ms", n, start_ms);
        page.point("PSS, MiB", n, pss as f64 / Bytes::MIB as f64);
        page.point("wake-ups a second", n, wake_ups);
        page.point("processor, %", n, cpu);
    }
    Ok(page)
}
