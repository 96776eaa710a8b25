//! What the figures were measured on.

mod line;

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use serde::Serialize;
use shm_proto::internal::os::barrier;
use shm_proto::internal::os::clock::monotonic_ns;

/// Facts that figures depend on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Host {
    pub cpu_model: String,
    /// Processors that this process may use.
    pub cpus: Vec<usize>,
    /// Of the first of them, from the nearest to the farthest.
    pub caches: Vec<Cache>,
    /// What a cache line takes from the first to the second of them, which carry writer and reader; absent if there is one, or
    /// if both were too busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_ns: Option<f64>,
    /// The processor says that a hypervisor is under it.
    pub virtual_machine: bool,
    pub kernel: String,
    pub architecture: String,
    pub memory_bytes: u64,
    /// `asymmetric` (membarrier: the sleeper pays) or `fence` (the writer pays with every message).
    pub barrier: &'static str,
    /// Of shared memory, as `/sys/kernel/mm/transparent_hugepage/shmem_enabled` says.
    pub huge_pages: String,
    /// Runnable processes in the last minute, on average, before this began.
    pub load: f64,
    /// What one look at the clock takes; latencies have one in each round.
    pub clock_ns: f64,
    pub version: &'static str,
}

/// A cache for data, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    pub level: u32,
    /// With a unit, such as `48K`.
    pub size: String,
    /// Processors that share it, such as `0-3`.
    pub shared_by: String,
}

/// Within a package a cache line takes less than this; between packages, or between clusters that share no cache, more.
const NEAR_NS: f64 = 100.0;

impl Host {
    pub fn look() -> Self {
        let cpus = allowed_cpus();
        let cpuinfo = read("/proc/cpuinfo");
        let uname = uname().ok();
        let uname = uname.as_ref();
        Host {
            cpu_model: field(&cpuinfo, "model name").or_else(|| field(&cpuinfo, "Model")).unwrap_or("unknown").into(),
            caches: cpus.first().map_or_else(Vec::new, |&cpu| caches(cpu)),
            line_ns: cpus.get(1).and_then(|&second| line::one_way_ns(cpus[0], second)),
            cpus,
            virtual_machine: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor")),
            kernel: uname.map_or_else(String::new, |uname| uname.release().to_string_lossy().into_owned()),
            architecture: std::env::consts::ARCH.to_owned(),
            memory_bytes: memory(&read("/proc/meminfo")),
            barrier: if barrier::available() { "asymmetric" } else { "fence" },
            huge_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
            load: read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            clock_ns: clock_ns(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// In three lines for people.
    pub fn describe(&self) -> String {
        let plural = if self.cpus.len() == 1 { "processor" } else { "processors" };
        let machine = if self.virtual_machine { ", virtual machine" } else { "" };
        format!(
            "{}, {} {plural}{machine}, {:.1}GiB memory\nLinux {} {}; {} barrier; huge pages of shared memory: {}; load {:.2}; \
             shmd {}\n{}\n",
            self.cpu_model,
            self.cpus.len(),
            self.memory_bytes as f64 / (1u64 << 30) as f64,
            self.kernel,
            self.architecture,
            self.barrier,
            self.huge_pages,
            self.load,
            self.version,
            self.describe_processors(),
        )
    }

    fn describe_processors(&self) -> String {
        let caches = self.caches.iter().map(|cache| {
            let shared = if cache.shared_by.contains(['-', ',']) { " shared" } else { "" };
            format!("L{} {}{shared}", cache.level, cache.size)
        });
        let caches = caches.collect::<Vec<_>>().join(", ");
        let caches = if caches.is_empty() { "unknown".to_owned() } else { caches };
        let line = match (&self.cpus[..], self.line_ns) {
            ([here, there, ..], Some(ns)) => {
                let far = if ns < NEAR_NS { "near" } else { "far" };
                format!("; a cache line from processor {here} to {there}: {ns:.0}ns ({far})")
            }
            _ => String::new(),
        };
        format!("caches: {caches}{line}")
    }
}

/// The caches for data of a processor.
fn caches(cpu: usize) -> Vec<Cache> {
    let fact =
        |index, name| read(&format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{name}")).trim().to_owned();
    let facts = (0..8).map(|index| ["level", "type", "size", "shared_cpu_list"].map(|name| fact(index, name)));
    let data = facts.filter(|[_, kind, size, _]| kind != "Instruction" && !size.is_empty());
    data.filter_map(|[level, _, size, shared_by]| Some(Cache { level: level.parse().ok()?, size, shared_by })).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Processors that this process may use, in order.
pub fn allowed_cpus() -> Vec<usize> {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu) == Ok(true)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Keeps the calling thread, and those that it starts, on a processor.
pub(crate) fn stay_on(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// The first value of `name` in lines of `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn memory(meminfo: &str) -> u64 {
    let kib = field(meminfo, "MemTotal").and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The word in brackets of `always [never] advise`.
fn chosen(text: &str) -> String {
    let word = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    word.map_or("unknown", |(word, _)| word).to_owned()
}

fn clock_ns() -> f64 {
    const LOOKS: u32 = 20_000;
    let begun = monotonic_ns();
    let last = (0..LOOKS).fold(begun, |_, _| monotonic_ns());
    (last - begun) as f64 / f64::from(LOOKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_in_what_the_kernel_says() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.80GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(cpuinfo, "model name"), Some("Some CPU @ 2.80GHz"));
        assert_eq!(field(cpuinfo, "model"), None);
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:  2048 kB\n"), 2 << 20);
        assert_eq!(chosen("always within_size advise [never] deny force\n"), "never");
        assert_eq!(chosen(""), "unknown");
    }

    #[test]
    fn this_machine_can_be_described() {
        let host = Host::look();
        assert!(!host.cpus.is_empty() && host.memory_bytes > 0 && host.clock_ns > 0.0, "{host:?}");
        assert!(host.describe().contains("barrier"), "{}", host.describe());
        assert_eq!(host.describe().lines().count(), 3, "{}", host.describe());
    }

    #[test]
    fn processors_are_near_or_far() {
        let cache =
            |level, size: &str, shared_by: &str| Cache { level, size: size.into(), shared_by: shared_by.into() };
        let host = Host {
            cpus: vec![2, 5],
            caches: vec![cache(1, "48K", "2"), cache(3, "30720K", "0-7")],
            line_ns: Some(154.2),
            ..Host::look()
        };
        let far = "caches: L1 48K, L3 30720K shared; a cache line from processor 2 to 5: 154ns (far)";
        assert_eq!(host.describe_processors(), far);
        let near = Host { line_ns: Some(31.0), ..host.clone() };
        assert!(near.describe_processors().ends_with("31ns (near)"));
        let alone = Host { caches: Vec::new(), line_ns: None, ..host };
        assert_eq!(alone.describe_processors(), "caches: unknown");
    }
}
