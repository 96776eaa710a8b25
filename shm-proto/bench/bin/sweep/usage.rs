//! The resources that a process uses, as the kernel reports them.

use std::fs;
use std::time::{Duration, Instant};

use shm_bench::stop::Stop;
use shm_bench::{Failure, Result};
use shm_proto::{Bytes, Error};

/// What a process has used so far, all threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    wake_ups: u64,
    cpu_ns: u64,
}

/// What a process used while it was watched.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) wake_ups_per_s: f64,
    /// Percent of one processor.
    pub(super) cpu_percent: f64,
}

/// Watches processes for `time`, after letting them settle.
pub(super) fn watch(pids: &[u32], settle: Duration, time: Duration, stop: Stop<'_>) -> Result<Vec<Usage>> {
    stop.pause(settle)?;
    let look = || pids.iter().map(|&pid| used(pid)).collect::<Result<Vec<_>>>();
    let (begun, before) = (Instant::now(), look()?);
    stop.pause(time)?;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), look()?);
    let usage = |(before, after): (&Used, &Used)| Usage {
        wake_ups_per_s: after.wake_ups.saturating_sub(before.wake_ups) as f64 / seconds,
        cpu_percent: after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9 / seconds * 100.0,
    };
    Ok(before.iter().zip(&after).map(usage).collect())
}

/// `68KiB`, `3.1MiB`.
pub(super) fn mebibytes(bytes: u64) -> String {
    let of = |unit| bytes as f64 / unit as f64;
    if bytes < Bytes::MIB { format!("{:.0}KiB", of(Bytes::KIB)) } else { format!("{:.1}MiB", of(Bytes::MIB)) }
}

fn used(pid: u32) -> Result<Used> {
    let mut used = Used::default();
    for thread in threads(pid)? {
        let one =
            usage(&read(pid, &format!("task/{thread}/status"))?, &read(pid, &format!("task/{thread}/schedstat"))?);
        used.wake_ups += one.wake_ups;
        used.cpu_ns += one.cpu_ns;
    }
    Ok(used)
}

/// The names of a process's threads in /proc.
pub(super) fn threads(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).map_err(|e| Error::system(format!("look into {path}"), e))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Proportional and resident size of a process in bytes.
pub(super) fn memory(pid: u32) -> Result<(u64, u64)> {
    let sizes = sizes(&read(pid, "smaps_rollup")?);
    sizes.ok_or_else(|| Failure::Other(format!("the kernel does not tell the memory of process {pid} in smaps_rollup")))
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{name}");
    Ok(fs::read_to_string(&path).map_err(|e| Error::system(format!("read {path}"), e))?)
}

/// The number after `name:`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn sizes(rollup: &str) -> Option<(u64, u64)> {
    Some((number(rollup, "Pss")? * 1024, number(rollup, "Rss")? * 1024))
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
        assert_eq!(sizes(rollup), Some((1 << 20, 2 << 20)));
        assert_eq!(sizes(""), None);
    }

    #[test]
    fn a_process_that_works_is_seen_to_and_one_that_sleeps_is_not() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let stop = Stop::when_readable(&reader);
        let start = |script: &str| std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
        let [mut idle, mut busy] = ["exec sleep 1000", "while :; do :; done"].map(start);
        let time = Duration::from_millis(200);
        // On a busy machine, the busy one may not have had the processor yet.
        let seen = loop {
            match watch(&[idle.id(), busy.id()], time, time, stop) {
                Ok(seen) if seen[1].cpu_percent == 0.0 => {}
                seen => break seen,
            }
        };
        // The processes end before an assertion can fail.
        for child in [&mut idle, &mut busy] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let seen = seen.unwrap();
        assert!(seen[0].cpu_percent < seen[1].cpu_percent, "{seen:?}");
        assert!(watch(&[idle.id()], time, time, stop).is_err(), "there is no such process any more");
    }
}
