//! The processor time that a process has used.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::{Deserialize, Serialize};
use shm_proto::Error;

use crate::Result;

/// Processor time of a process, all of its threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuTime {
    pub user_ns: u64,
    /// In the kernel, for this process.
    pub system_ns: u64,
}

impl CpuTime {
    /// What this process has used since it began.
    pub fn now() -> Result<Self> {
        let used = getrusage(UsageWho::RUSAGE_SELF).map_err(|e| Error::system("ask for the processor time used", e))?;
        let ns = |time: TimeVal| u64::try_from(time.num_nanoseconds()).unwrap_or(0);
        Ok(CpuTime { user_ns: ns(used.user_time()), system_ns: ns(used.system_time()) })
    }

    /// What this process has used since `begin`.
    pub fn since(begin: Self) -> Result<Self> {
        let now = Self::now()?;
        // The kernel keeps the sum exactly and estimates the parts, so a part may go back a little.
        let less = |now: u64, begin: u64| now.saturating_sub(begin);
        Ok(CpuTime { user_ns: less(now.user_ns, begin.user_ns), system_ns: less(now.system_ns, begin.system_ns) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let begin = CpuTime::now().unwrap();
        let spent = || {
            let spent = CpuTime::since(begin).unwrap();
            spent.user_ns + spent.system_ns
        };
        let first = spent();
        // Ends because this loop itself uses the processor.
        while spent() < first + 1_000_000 {}
        let all = CpuTime::now().unwrap();
        assert!(all.user_ns + all.system_ns >= 1_000_000, "{all:?}");
    }
}
