//! How much memory can be taken before a limit is reached at which the kernel kills a process.
//!
//! | limit | of shared memory | of this process's own |
//! |---|---|---|
//! | size of the file system | x | |
//! | `memory.max` and `memory.high` of this process's control group and of every group above it | x | x |
//! | `MemAvailable` and `SwapFree` of the machine | x | x |
//! | `RLIMIT_AS`, the address space | | x |
//!
//! Page cache that the kernel can drop counts as free. Swap space of a control group does not.

mod cgroup;

use std::fmt;
use std::fs;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::clock::{self, monotonic_ns};
use super::reserve;
use crate::size::Bytes;

/// Left free for memory that is taken without asking here: tables, stacks, descriptors, the process that reserves.
const MARGIN: u64 = 4 << 20;
/// [`take`] measures again after this time. A large message takes memory many times while it comes in.
pub(crate) const FRESH: Duration = Duration::from_millis(50);

/// The bytes that can still be taken, and the limit that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes.
    pub bytes: u64,
    /// The limit, and how much of it is in use.
    place: String,
}

impl Free {
    /// No limit is known.
    pub const UNLIMITED: Self = Self { bytes: u64::MAX, place: String::new() };

    /// This many bytes in the file system of shared memory.
    #[must_use]
    pub fn in_shm(bytes: u64) -> Self {
        Self { bytes, place: "in /dev/shm".to_owned() }
    }
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Bytes(self.bytes), self.place)
    }
}

/// The bytes by which the object `fd` in `/dev/shm` can still grow.
#[must_use]
pub fn shared(fd: BorrowedFd<'_>) -> Free {
    let in_shm = reserve::free(fd).map_or(Free::UNLIMITED, Free::in_shm);
    least([Some(in_shm), cgroup::free(), machine()])
}

/// The bytes that this process can still take for itself.
#[must_use]
pub fn own() -> Free {
    least([cgroup::free(), machine(), address_space()])
}

/// Asks for `bytes` of this process's own memory before they are allocated.
///
/// # Errors
/// The bytes that can be taken, if they are fewer.
pub fn take(bytes: u64) -> Result<(), Free> {
    static LAST: Mutex<Option<(u64, Free)>> = Mutex::new(None);
    // A thread that finds the figure in use measures by itself.
    let mut last = LAST.try_lock().ok();
    if let Some(Some((until_ns, free))) = last.as_deref_mut()
        && monotonic_ns() < *until_ns
        && let Some(left) = free.bytes.checked_sub(bytes)
    {
        free.bytes = left;
        return Ok(());
    }
    let free = own();
    let left = free.bytes.checked_sub(bytes);
    if let Some(last) = &mut last {
        **last = left.map(|bytes| (clock::after(FRESH), Free { bytes, ..free.clone() }));
    }
    left.map_or(Err(free), |_| Ok(()))
}

fn least(limits: [Option<Free>; 3]) -> Free {
    limits.into_iter().flatten().min_by_key(|free| free.bytes).unwrap_or(Free::UNLIMITED)
}

fn machine() -> Option<Free> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = field(&text, "MemAvailable:")?.saturating_add(field(&text, "SwapFree:").unwrap_or(0));
    Some(Free { bytes: bytes.saturating_sub(MARGIN), place: "on this machine".to_owned() })
}

/// A line of `/proc/meminfo`, which counts in KiB.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What this process's limit on address space leaves, if it has one.
pub(super) fn address_space() -> Option<Free> {
    let (limit, _) = getrlimit(Resource::RLIMIT_AS).ok()?;
    if limit == RLIM_INFINITY {
        return None;
    }
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let used = field(&text, "VmSize:")?;
    let place = format!("of address space (limit {}, in use {}; ulimit -v)", Bytes(limit), Bytes(used));
    Some(Free { bytes: limit.saturating_sub(used).saturating_sub(MARGIN), place })
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::setrlimit;

    use super::*;
    use shm_test_support::in_child;

    #[test]
    fn the_least_of_all_limits_counts_and_is_named() {
        let of = |bytes, place: &str| Some(Free { bytes, place: place.to_owned() });
        assert_eq!(least([None, None, None]), Free::UNLIMITED);
        let free = least([of(3 << 20, "here"), of(2 << 20, "there (limit 64MiB)"), None]);
        assert_eq!(free.to_string(), "2MiB there (limit 64MiB)");
    }

    #[test]
    fn the_machines_memory_is_what_is_available_with_swap() {
        let text = "MemTotal:  8 kB\nMemAvailable:     20480 kB\nSwapFree:  1024 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(20 << 20));
        assert_eq!(field(text, "SwapFree:"), Some(1 << 20));
        assert_eq!(field(text, "SwapTotal:"), None);
        assert!(machine().is_some_and(|free| free.bytes > 0));
    }

    #[test]
    fn the_address_space_is_a_limit_where_there_is_one() {
        let code = in_child(|| {
            let before = own();
            let now = field(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmSize:").unwrap_or(0);
            if setrlimit(Resource::RLIMIT_AS, now + (20 << 20), RLIM_INFINITY).is_err() {
                return 1;
            }
            let after = own();
            i32::from(
                !(after.bytes <= 16 << 20 && after.bytes < before.bytes && after.to_string().contains("ulimit -v")),
            )
        });
        assert_eq!(code.exit_code(), 0);
    }

    #[test]
    fn what_was_asked_for_in_a_moment_is_counted_together() {
        let code = in_child(|| {
            let now = field(&fs::read_to_string("/proc/self/status").unwrap_or_default(), "VmSize:").unwrap_or(0);
            if setrlimit(Resource::RLIMIT_AS, now + (40 << 20), RLIM_INFINITY).is_err() {
                return 1;
            }
            // Another test may have looked just now.
            std::thread::sleep(FRESH);
            let asked = (0..1000).take_while(|_| take(8 << 20).is_ok()).count();
            // When the figure is old it is measured again, because nothing was really taken.
            i32::from(asked == 0 || take(64 << 20).is_ok())
        });
        assert_eq!(code.exit_code(), 0);
    }
}
