//! A name in the file system that a source listens at.

use std::fs::{self, FileType, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use shm_proto::Error;
use shm_proto::internal::os::file_id::FileId;

use crate::cleanup;

/// Why something is not done to a file.
pub(super) const REPLACED: &str = "another file took its place while it was being opened; find out which other program writes to \
                                   its directory";

/// A file made by this daemon: its name is removed when this is dropped, unless it has become another file's meanwhile.
#[derive(Debug)]
pub(super) struct Made(Place);

/// Where a file was made, and which it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    path: PathBuf,
    id: FileId,
}

impl Made {
    /// The file that is at `path` now was just made here.
    ///
    /// # Errors
    /// When it is gone already.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self(Place { path: path.to_owned(), id: FileId::at(path)? }))
    }

    /// The file that is, or was, at `path` was made here.
    pub(super) fn known(path: &Path, file: &Metadata) -> Self {
        Self(Place { path: path.to_owned(), id: FileId::from(file) })
    }

    /// The file that is, or was, there was made by the program before this one in the same process.
    pub(super) fn by_program_before(place: Place) -> Self {
        Self(place)
    }

    /// Which file it is.
    pub(super) fn place(&self) -> Place {
        self.0.clone()
    }

    /// Gives exactly this socket this mode, whatever the umask. The name may lead elsewhere by now: where other users can write
    /// to the directory, to a file of theirs or of anybody.
    ///
    /// # Errors
    /// If another file has its name, or if the system refuses.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&self.0.path)?;
        let found = file.metadata()?;
        if !self.is(&found) || !found.file_type().is_socket() {
            return Err(io::Error::other(REPLACED));
        }
        fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), Permissions::from_mode(mode))
    }

    /// Whether this is the file.
    pub(super) fn is(&self, file: &Metadata) -> bool {
        FileId::from(file) == self.0.id
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Place { path, id } = &self.0;
        if FileId::at(path).is_ok_and(|found| found == *id)
            && let Err(e) = fs::remove_file(path)
        {
            cleanup::failed(None, path.display(), e);
        }
    }
}

/// That `path` is something else than a source needs, and the way out.
pub(super) fn wrong_kind(path: &Path, found: FileType, wanted: &str) -> Error {
    let what = match found {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_file() => "a regular file",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "something else",
    };
    let reason = format!("it is {what} and not {wanted}; remove it, or name another path");
    Error::system(path.display().to_string(), io::Error::other(reason))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn only_the_socket_that_was_made_gets_a_mode() {
        let dir = TempDir::new();
        let [path, other] = ["x", "other"].map(|name| dir.path().join(name));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let _socket = UnixListener::bind(&path).unwrap();
        let made = Made::at(&path).unwrap();
        made.set_mode(0o604).unwrap();
        assert_eq!(mode(&path), 0o604);
        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(&path).unwrap();
        for link in [std::os::unix::fs::symlink::<&Path, &Path>, fs::hard_link::<&Path, &Path>] {
            link(&other, &path).unwrap();
            assert!(made.set_mode(0o666).unwrap_err().to_string().contains("another file took its place"));
            assert_eq!(mode(&other), 0o600);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn only_the_file_that_was_made_is_removed() {
        let dir = TempDir::new();
        let path = dir.path().join("x");
        fs::write(&path, "").unwrap();
        drop(Made::at(&path).unwrap());
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        let made = Made::at(&path).unwrap();
        fs::write(dir.path().join("y"), "another").unwrap();
        fs::rename(dir.path().join("y"), &path).unwrap();
        drop(made);
        assert_eq!(fs::read(&path).unwrap(), b"another");
    }
}
