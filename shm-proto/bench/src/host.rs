//! What the figures were measured on.

use std::fs;

use nix::sched::{CpuSet, sched_getaffinity};
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

impl Host {
    pub fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let uname = uname().ok();
        let uname = uname.as_ref();
        Host {
            cpu_model: field(&cpuinfo, "model name").or_else(|| field(&cpuinfo, "Model")).unwrap_or("unknown").into(),
            cpus: allowed_cpus(),
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

    /// In two lines for people.
    pub fn describe(&self) -> String {
        let plural = if self.cpus.len() == 1 { "processor" } else { "processors" };
        let machine = if self.virtual_machine { ", virtual machine" } else { "" };
        format!(
            "{}, {} {plural}{machine}, {:.1}GiB memory\nLinux {} {}; {} barrier; huge pages of shared memory: {}; load {:.2}; \
             shmd {}\n",
            self.cpu_model,
            self.cpus.len(),
            self.memory_bytes as f64 / (1u64 << 30) as f64,
            self.kernel,
            self.architecture,
            self.barrier,
            self.huge_pages,
            self.load,
            self.version,
        )
    }
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
    }
}
