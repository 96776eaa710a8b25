//! A test's own directory and object names, and what is left in them.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use shm_proto::internal::os::random;

/// A directory that everybody may look into, a runtime directory in it that does not exist yet, and a prefix.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) prefix: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("test-{:08x}-{number}", random::u64() as u32);
        let dir = std::env::temp_dir().join(format!("shmd-{prefix}"));
        fs::DirBuilder::new().mode(0o755).create(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Place { dir, prefix }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The daemon's runtime directory; the daemon makes it.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// Where a channel's segment is to be seen.
    pub(crate) fn segment(&self, channel: &str) -> PathBuf {
        Path::new("/dev/shm").join(format!("{}.{channel}", self.prefix))
    }

    /// What a daemon that has ended should have removed: objects in `/dev/shm`, files in the runtime directory.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        // The directory itself is left by a daemon that has found it there, left by one that was killed.
        let left = fs::read_dir(self.run_dir()).into_iter().flatten().filter_map(Result::ok);
        shared_memory(&self.prefix).into_iter().chain(left.map(|entry| entry.path())).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        for object in shared_memory(&self.prefix) {
            let _ = fs::remove_file(object);
        }
    }
}

/// Everything in `/dev/shm` that starts with the prefix.
pub(crate) fn shared_memory(prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/shm").unwrap().filter_map(Result::ok);
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
}
