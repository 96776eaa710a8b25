//! The machine's facts that the configuration depends on, looked up once so that the rest is a pure function of them.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use nix::sys::stat::{SFlag, fstat};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, getegid, geteuid, getgroups};
use shm_proto::Prefix;
use shm_proto::internal::client::{default_prefix, default_runtime_dir};

/// Where the kernel shows POSIX shared memory objects.
const SHM_DIR: &str = "/dev/shm";

/// This machine, as far as the configuration is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The daemon's effective user.
    pub(crate) uid: u32,
    /// The groups that the daemon may give files to.
    pub(crate) groups: Groups,
    /// Where socket and lock file go unless something else is asked for.
    pub(crate) runtime_dir: PathBuf,
    /// The objects' prefix unless something else is asked for.
    pub(crate) prefix: Prefix,
    /// The directory for what outlives the daemon unless something else is asked for, if there is a usual one.
    pub(crate) state_dir: Option<PathBuf>,
    /// Whether standard input is something that bytes come from: a pipe, a file or a socket.
    pub(crate) stdin_feeds: bool,
    /// The machine's memory in bytes.
    pub(crate) memory: Option<u64>,
    /// What shared memory there can be.
    pub(crate) shm: Option<Shm>,
    /// The directory of the shared memory objects.
    pub(crate) shm_dir: PathBuf,
}

/// Groups that a process may give its files to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// Any group, because the process has `CAP_CHOWN`.
    All,
    /// Only the groups that the process is in.
    Own(Vec<u32>),
}

/// The size of the file system of shared memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shm {
    /// All of it.
    pub(crate) total: u64,
    /// What this user can still take.
    pub(crate) free: u64,
}

impl Host {
    /// Looks at the machine, the user and standard input.
    pub(crate) fn look() -> Self {
        let uid = geteuid().as_raw();
        Host {
            uid,
            groups: Groups::look(),
            runtime_dir: default_runtime_dir(),
            prefix: default_prefix(),
            state_dir: state_dir(uid, |name| env::var(name).ok().filter(|value| !value.is_empty())),
            stdin_feeds: feeds(io::stdin()),
            memory: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text)),
            shm: shm_size(Path::new(SHM_DIR)),
            shm_dir: SHM_DIR.into(),
        }
    }

    /// Bytes that an object of this name holds, if this user has one: a dead daemon's, or the running daemon's own.
    pub(crate) fn held(&self, object: &str) -> Option<u64> {
        match std::fs::symlink_metadata(self.shm_dir.join(object.trim_start_matches('/'))) {
            Ok(file) if file.is_file() && file.uid() == self.uid => Some(file.blocks() * 512),
            _ => None,
        }
    }
}

impl Groups {
    fn look() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if may_change_owners(&status).unwrap_or(geteuid().is_root()) {
            return Groups::All;
        }
        let supplementary = getgroups().unwrap_or_default();
        Groups::Own(supplementary.into_iter().chain([getegid()]).map(Gid::as_raw).collect())
    }

    /// Whether the process may give files to this group.
    pub(crate) fn contains(&self, gid: u32) -> bool {
        match self {
            Groups::All => true,
            Groups::Own(groups) => groups.contains(&gid),
        }
    }
}

/// The directory that the service manager has made for state, else the one that is usual for root or for the user.
fn state_dir(uid: u32, variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    // There may be several, with a colon between them.
    let given = variable("STATE_DIRECTORY").and_then(|dirs| dirs.split(':').next().map(PathBuf::from));
    match given.filter(|dir| dir.is_absolute()) {
        Some(dir) => Some(dir),
        None if uid == 0 => Some("/var/lib/shmd".into()),
        None => {
            let usual = || absolute("HOME").map(|home| home.join(".local/state"));
            absolute("XDG_STATE_HOME").or_else(usual).map(|dir| dir.join("shmd"))
        }
    }
}

/// Whether `CAP_CHOWN`, the capability with number 0, is in effect.
fn may_change_owners(status: &str) -> Option<bool> {
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    Some(u64::from_str_radix(capabilities.trim(), 16).ok()? & 1 != 0)
}

/// Whether bytes can come from this descriptor without anybody typing.
fn feeds(fd: impl AsFd) -> bool {
    let kind = fstat(fd).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    [SFlag::S_IFIFO, SFlag::S_IFREG, SFlag::S_IFSOCK].contains(&kind)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `None` where there is no such file system or it has no limit of its own.
fn shm_size(dir: &Path) -> Option<Shm> {
    let fs = statvfs(dir).ok()?;
    let unit = fs.fragment_size();
    let (total, free) = (fs.blocks().checked_mul(unit)?, fs.blocks_available().checked_mul(unit)?);
    (total > 0).then_some(Shm { total, free })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_where_the_service_manager_root_or_the_user_keeps_it() {
        let dir = |uid, variables: &[(&str, &str)]| {
            let value =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
            state_dir(uid, value).map(|dir| dir.display().to_string())
        };
        let home = ("HOME", "/home/me");
        assert_eq!(dir(0, &[home]).as_deref(), Some("/var/lib/shmd"));
        assert_eq!(dir(7, &[home]).as_deref(), Some("/home/me/.local/state/shmd"));
        assert_eq!(dir(7, &[home, ("XDG_STATE_HOME", "/s")]).as_deref(), Some("/s/shmd"));
        assert_eq!(dir(7, &[home, ("XDG_STATE_HOME", "relative")]).as_deref(), Some("/home/me/.local/state/shmd"));
        assert_eq!(dir(7, &[home, ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]).as_deref(), Some("/var/lib/a"));
        assert_eq!(dir(7, &[]), None);
    }

    #[test]
    fn the_first_capability_is_the_one_to_change_owners() {
        let status = |capabilities: &str| format!("Name:\tshmd\nCapPrm:\t0\nCapEff:\t{capabilities}\n");
        assert_eq!(may_change_owners(&status("000001ffffffffff")), Some(true));
        assert_eq!(may_change_owners(&status("0000000000000000")), Some(false));
        assert_eq!(may_change_owners(&status("00000000a80425fa")), Some(false));
        assert_eq!(may_change_owners(""), None);
    }
}
