//! What channels cost a daemon that does nothing: memory, the time to start, wake-ups and processor time.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::Bytes;

use super::page::Page;
use super::{Progress, Sweep};
use crate::commands::bench::crew::Interruptible;
use crate::commands::bench::stage::{Daemon, Setup};
use crate::error::{Failure, Result};
use crate::human;
use crate::output::wait_for;
use crate::signals::Signals;

/// Of each channel.
const CAPACITY: u64 = 64 * Bytes::KIB;
/// A daemon that has just started has things to finish.
const SETTLE: Duration = Duration::from_millis(500);

/// What a process has used so far, all threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    wake_ups: u64,
    cpu_ns: u64,
}

pub(super) fn run(sweep: &mut Sweep<'_>) -> Result<Interruptible<Page>> {
    let counts = sweep.choose(vec![1, 10], vec![1, 3, 10, 30, 100, 300, 1000]);
    let watched = Duration::from_millis(sweep.choose(500, 10_000));
    let mut page = Page {
        file: "channels.svg",
        title: "Channels in one daemon",
        method: format!(
            "A daemon with so many channels of {} and nobody attached: memory after its start (the proportional and the \
             resident size of the process, and what its objects in /dev/shm take), and what it does in {} seconds.",
            Bytes(CAPACITY),
            watched.as_secs_f64()
        ),
        columns: vec!["channels", "start", "PSS", "RSS", "in /dev/shm", "threads", "wake-ups a second", "processor"],
        x_label: "channels",
        y_label: "see the names",
        ..Page::default()
    };
    sweep.progress = Progress::new(counts.len());
    for channels in counts {
        sweep.progress.step(&format!("{channels} channels"));
        let mut setup = Setup::default();
        for n in 0..channels {
            setup.channel(&format!("c{n}"), CAPACITY, "");
        }
        let daemon = setup.start()?;
        let Some((before, _)) = after(&daemon, SETTLE, sweep.signals)? else { return Ok(None) };
        let Some((used, seconds)) = after(&daemon, watched, sweep.signals)? else { return Ok(None) };
        let (pss, rss) = memory(&read(&daemon, "smaps_rollup")?)?;
        let threads = threads(&daemon)?.len();
        let wake_ups = used.wake_ups.saturating_sub(before.wake_ups) as f64 / seconds;
        let cpu = used.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9 / seconds * 100.0;
        let start_ms = daemon.start_up.as_secs_f64() * 1e3;
        page.rows.push(vec![
            channels.to_string(),
            format!("{start_ms:.1} ms"),
            human::bytes(pss),
            human::bytes(rss),
            human::bytes(daemon.shared_bytes()),
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
    Ok(Some(page))
}

/// What the daemon has used when the time has passed, and how long it really was.
fn after(daemon: &Daemon, time: Duration, signals: &Signals) -> Result<Interruptible<(Used, f64)>> {
    let begun = Instant::now();
    while let left = time.saturating_sub(begun.elapsed())
        && !left.is_zero()
    {
        wait_for(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], left)?;
        if signals.came() {
            return Ok(None);
        }
    }
    let mut used = Used::default();
    for thread in threads(daemon)? {
        let one = usage(
            &read(daemon, &format!("task/{thread}/status"))?,
            &read(daemon, &format!("task/{thread}/schedstat"))?,
        );
        used.wake_ups += one.wake_ups;
        used.cpu_ns += one.cpu_ns;
    }
    Ok(Some((used, begun.elapsed().as_secs_f64())))
}

fn threads(daemon: &Daemon) -> Result<Vec<String>> {
    let path = format!("/proc/{}/task", daemon.pid());
    let entries = fs::read_dir(&path).map_err(|e| shm_proto::Error::system(format!("look into {path}"), e))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn read(daemon: &Daemon, name: &str) -> Result<String> {
    let path = format!("/proc/{}/{name}", daemon.pid());
    Ok(fs::read_to_string(&path).map_err(|e| shm_proto::Error::system(format!("read {path}"), e))?)
}

/// The number after `name:`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Proportional and resident size in bytes.
fn memory(rollup: &str) -> Result<(u64, u64)> {
    match (number(rollup, "Pss"), number(rollup, "Rss")) {
        (Some(pss), Some(rss)) => Ok((pss * 1024, rss * 1024)),
        _ => Err(Failure::Other("the kernel does not tell the daemon's memory in smaps_rollup".to_owned())),
    }
}

/// How often a thread went to sleep and was woken, and its processor time.
fn usage(status: &str, schedstat: &str) -> Used {
    Used {
        wake_ups: number(status, "voluntary_ctxt_switches").unwrap_or(0),
        cpu_ns: schedstat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_read_from_what_the_kernel_says() {
        let status = "Name:\tshmd\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(usage(status, "123456 99 3\n"), Used { wake_ups: 42, cpu_ns: 123_456 });
        let rollup = "5500-7ff ---p [rollup]\nRss:   2048 kB\nPss:    1024 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(memory(rollup).unwrap(), (1 << 20, 2 << 20));
        assert!(memory("").is_err());
    }
}
