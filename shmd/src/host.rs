//! The machine's facts that the configuration depends on, looked up once so that the rest is a pure function of them.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, fstat};
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;
use shm_proto::Prefix;
use shm_proto::control::{default_prefix, default_runtime_dir};

/// Where the kernel shows POSIX shared memory objects.
const SHM_DIR: &str = "/dev/shm";

/// This machine, as far as the configuration is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The daemon's effective user.
    pub(crate) uid: u32,
    /// Where socket and lock file go unless something else is asked for.
    pub(crate) runtime_dir: PathBuf,
    /// The objects' prefix unless something else is asked for.
    pub(crate) prefix: Prefix,
    /// Whether standard input is something that bytes come from: a pipe, a file or a socket.
    pub(crate) stdin_feeds: bool,
    /// The machine's memory in bytes.
    pub(crate) memory: Option<u64>,
    /// What shared memory there can be.
    pub(crate) shm: Option<Shm>,
    /// The directory of the shared memory objects.
    pub(crate) shm_dir: PathBuf,
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
            runtime_dir: default_runtime_dir(),
            prefix: default_prefix(),
            stdin_feeds: feeds(io::stdin()),
            memory: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text)),
            shm: shm_size(Path::new(SHM_DIR)),
            shm_dir: SHM_DIR.into(),
        }
    }

    /// Bytes that an object of this name holds already, when it is ours: they are free for its successor.
    pub(crate) fn held(&self, object: &str) -> u64 {
        match std::fs::symlink_metadata(self.shm_dir.join(object.trim_start_matches('/'))) {
            Ok(file) if file.is_file() && file.uid() == self.uid => file.blocks() * 512,
            _ => 0,
        }
    }
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
