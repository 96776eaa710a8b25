//! Who may make channels at run time, how many, and where those are kept that outlive the daemon.

use std::path::{Path, PathBuf};

use shm_proto::Bytes;

use super::origin::Error;
use super::raw::Top;
use super::typed::{access, ranged};
use crate::access::Access;
use crate::host::Host;

const MAX_CREATED: u32 = 64;
const MOST_CREATED: u32 = 65_536;
const MAX_CREATED_MEMORY: u64 = Bytes::GIB;

/// The rules for channels that are made at run time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Creation {
    /// Who may make them.
    pub(crate) may: Access,
    /// Most of them at a time, those of root and of the daemon's own user not counted.
    pub(crate) most: u32,
    /// The most that their largest capacities may come to, in bytes.
    pub(crate) most_memory: u64,
}

/// Checks the keys.
pub(super) fn check(top: &Top, host: &Host) -> Result<Creation, Error> {
    // Half of the shared memory is for the channels of the configuration and for other programs.
    let default_memory = host.shm.map_or(MAX_CREATED_MEMORY, |shm| MAX_CREATED_MEMORY.min(shm.total / 2));
    Ok(Creation {
        may: access(&top.create, host)?,
        most: ranged(&top.max_created, "max_created", 0..=MOST_CREATED, MAX_CREATED)?,
        most_memory: top.max_created_memory.as_ref().map_or(default_memory, |bytes| bytes.value.get()),
    })
}

/// The directory for what outlives the daemon, if there is one.
pub(super) fn state_dir(top: &Top, host: &Host) -> Result<Option<PathBuf>, Error> {
    match &top.state_dir {
        None => Ok(host.state_dir.clone()),
        Some(written) if written.value.is_empty() => Ok(None),
        Some(written) if !Path::new(&written.value).is_absolute() => {
            Err(written.bad(format!("state_dir {:?} must be an absolute path, or \"\" for none", written.value)))
        }
        Some(written) => Ok(Some(Path::new(&written.value).to_owned())),
    }
}
