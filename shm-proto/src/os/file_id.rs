//! Which file it is, whatever its name.

use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{FileStat, fstat};
use serde::{Deserialize, Serialize};

/// The device and number of a file. While somebody has the file open or mapped, no other file has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// The device that the file is on.
    pub device: u64,
    /// The file's number on the device.
    pub inode: u64,
}

impl FileId {
    /// The file that is open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(file: impl AsFd) -> nix::Result<Self> {
        fstat(file).map(|found| Self::from(&found))
    }

    /// The file that has this name now. A symbolic link is not followed.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|found| Self::from(&found))
    }
}

impl From<&Metadata> for FileId {
    fn from(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

impl From<&FileStat> for FileId {
    fn from(found: &FileStat) -> Self {
        Self { device: found.st_dev, inode: found.st_ino }
    }
}
