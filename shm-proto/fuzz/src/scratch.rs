//! Files for one input, and a directory for one process.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pwrite;

/// A file in memory with these bytes.
pub(crate) fn file(bytes: &[u8]) -> OwnedFd {
    let file = memfd_create("shm-fuzz", MFdFlags::MFD_CLOEXEC).expect("a file in memory can be made");
    let written = pwrite(&file, bytes, 0).expect("a file in memory can be written");
    assert_eq!(written, bytes.len());
    file
}

/// Where this process finds the file.
pub(crate) fn path(file: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// The file opened once more, for reading only.
pub(crate) fn read_only(file: impl AsFd) -> OwnedFd {
    fs::File::open(path(file)).expect("a file in memory can be opened again").into()
}

/// A directory that only this user may use. It is removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shm-fuzz-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
