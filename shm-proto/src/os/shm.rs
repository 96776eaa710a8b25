//! POSIX shared memory objects: files in `/dev/shm`, made with exactly the mode and group asked for.

mod leftover;
mod unnamed;

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statvfs::statvfs;

use super::file_id::FileId;
use super::retry;
use crate::error::{Result, SystemError};

pub use leftover::{Leftover, remove_blank, sweep};
pub use unnamed::Unnamed;

/// Where the kernel shows the objects.
const DIRECTORY: &str = "/dev/shm";

fn failed(step: impl Display, name: &str, error: Errno) -> SystemError {
    let action = format!("{step} shared memory {name}");
    match statvfs(DIRECTORY) {
        Ok(fs) if error == Errno::ENOSPC && fs.files_free() == 0 && fs.files() > 0 => {
            let (files, way) = (fs.files(), "raise that limit (mount -o remount,nr_inodes=N), or remove objects");
            let reason = format!("asked 1 inode, free 0 in {DIRECTORY} (limit {files}); {way}");
            SystemError::new(action, std::io::Error::new(std::io::ErrorKind::StorageFull, reason))
        }
        _ => SystemError::new(action, error),
    }
}

/// The path of the object `name` (`/PREFIX.NAME`).
#[must_use]
pub fn path(name: &str) -> String {
    format!("{DIRECTORY}{name}")
}

/// Opens the object by its name for reading, if the name leads to `object`; otherwise returns `object`. `/proc` shows mappings
/// of a descriptor that was opened before the object had its name as `#123 (deleted)`.
#[must_use]
pub fn by_name(name: &str, object: OwnedFd) -> OwnedFd {
    match open(name, false) {
        Ok(named) if is_same(&named, &object) => named,
        _ => object,
    }
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    FileId::of(one).is_ok_and(|one| FileId::of(other) == Ok(one))
}

/// Whether the name leads to this very object. This looks at the path and needs no descriptor: there may be none left.
#[must_use]
pub fn leads_to(name: &str, object: impl AsFd) -> bool {
    FileId::at(path(name)).is_ok_and(|there| FileId::of(object) == Ok(there))
}

/// Creates the object `name` (`/PREFIX.NAME`), empty and open for reading and writing. An object that must be complete before
/// other processes see it starts as an [`Unnamed`].
///
/// # Errors
/// [`SystemError`]; its source is of kind `AlreadyExists` if there is an object of this name, and
/// `PermissionDenied` if this user may not give files to group `gid`.
pub fn create(name: &str, mode: u32, gid: Option<u32>) -> Result<OwnedFd> {
    let object = Unnamed::create(name, mode, gid)?;
    object.publish()?;
    Ok(object.into_file())
}

/// Opens the object `name`. Follows no symbolic link, and opens only regular files.
///
/// # Errors
/// [`SystemError`], its source of kind `NotFound` when there is no such object.
pub fn open(name: &str, writable: bool) -> Result<OwnedFd> {
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    // Without O_NONBLOCK, a FIFO under this name would block the caller. The flag has no effect on files.
    let flags = access | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let what = if writable { "open for writing" } else { "open for reading" };
    let fd = retry(|| shm_open(name, flags, Mode::empty())).map_err(|error| failed(what, name, error))?;
    let kind = fstat(&fd).map_err(|error| failed("look at", name, error))?.st_mode;
    if SFlag::from_bits_truncate(kind) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(failed("open a special file as", name, Errno::EINVAL));
    }
    Ok(fd)
}

/// Removes the name. The memory stays as long as any process has the object open or mapped.
///
/// # Errors
/// [`SystemError`], its source of kind `NotFound` when there is no such object.
pub fn unlink(name: &str) -> Result<()> {
    shm_unlink(name).map_err(|error| failed("unlink", name, error))
}

/// Whether anything has this name, also if it belongs to another user or cannot be opened.
///
/// # Errors
/// [`SystemError`] if the kernel does not tell.
pub fn exists(name: &str) -> Result<bool> {
    match retry(|| shm_open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())) {
        Ok(_) | Err(Errno::EACCES | Errno::ELOOP | Errno::ENXIO | Errno::EISDIR) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(error) => Err(failed("look for", name, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::fd::AsRawFd;

    use nix::sys::stat::{fchmod, umask};
    use nix::unistd::{ftruncate, mkfifo};

    use super::*;
    use crate::os::map::Mapping;
    use crate::os::reserve;
    use shm_test_support::{NOBODY, Object, as_nobody, in_child, may_change_user};

    #[test]
    fn the_mode_is_exact_under_any_umask() {
        for mode in [0o640, 0o600, 0o666, 0o400] {
            let name = Object::new("mode");
            let child = in_child(|| {
                umask(Mode::from_bits_truncate(0o077));
                create(&name.0, mode, None).is_err().into()
            });
            assert_eq!(child.exit_code(), 0);
            let stat = nix::sys::stat::stat(&name.path()).unwrap();
            assert_eq!(stat.st_mode & 0o7777, mode, "{mode:o}");
        }
    }

    #[test]
    fn a_second_object_of_a_name_is_refused_as_existing() {
        let name = Object::new("twice");
        assert!(!exists(&name.0).unwrap());
        let _first = create(&name.0, 0o600, None).unwrap();
        assert!(exists(&name.0).unwrap());
        let error = create(&name.0, 0o600, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(&name.0), "{error}");
        unlink(&name.0).unwrap();
        assert_eq!(unlink(&name.0).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(open(&name.0, false).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_group_that_may_not_be_given_leaves_no_object_behind() {
        if !may_change_user() {
            return;
        }
        let name = Object::new("group");
        let code = as_nobody(|| match create(&name.0, 0o640, Some(0)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && error.to_string().contains("group 0") => 0,
            _ => 1,
        });
        assert_eq!(code, 0);
        assert!(!exists(&name.0).unwrap());
    }

    #[test]
    fn the_group_is_the_one_asked_for() {
        if !may_change_user() {
            return;
        }
        let name = Object::new("given");
        let fd = create(&name.0, 0o640, Some(NOBODY.gid)).unwrap();
        assert_eq!(fstat(&fd).unwrap().st_gid, NOBODY.gid);
    }

    #[test]
    fn another_user_that_may_only_read_can_neither_write_nor_truncate_nor_remap() {
        if !may_change_user() {
            return;
        }
        let name = Object::new("readonly");
        let fd = create(&name.0, 0o640, Some(NOBODY.gid)).unwrap();
        reserve::now(fd.as_fd(), 4096).unwrap();
        let code = as_nobody(|| {
            let Ok(read) = open(&name.0, false) else { return 1 };
            let again = format!("/proc/self/fd/{}", read.as_raw_fd());
            let refused =
                |result: Result<()>| matches!(result, Err(error) if error.kind() == ErrorKind::PermissionDenied);
            if Mapping::read_only(read.as_fd(), 4096).is_err() {
                2
            } else if !refused(Mapping::read_write(read.as_fd(), 4096).map(drop)) {
                3
            } else if !refused(open(&name.0, true).map(drop)) {
                4
            } else if ftruncate(&read, 0).is_ok() || reserve::punch(read.as_fd(), 0, 4096).is_ok() {
                5
            } else if nix::fcntl::open(again.as_str(), OFlag::O_RDWR, Mode::empty()).err() != Some(Errno::EACCES) {
                6
            } else if fchmod(&read, Mode::from_bits_truncate(0o666)) != Err(Errno::EPERM) {
                7
            } else {
                0
            }
        });
        assert_eq!(code, 0);
        assert_eq!(reserve::length(fd.as_fd()).unwrap(), 4096);
    }

    #[test]
    fn another_user_outside_the_group_cannot_open_but_sees_that_it_exists() {
        if !may_change_user() {
            return;
        }
        let name = Object::new("outside");
        let _fd = create(&name.0, 0o640, Some(0)).unwrap();
        let code = as_nobody(|| match (open(&name.0, false), exists(&name.0)) {
            (Err(error), Ok(true)) if error.kind() == ErrorKind::PermissionDenied => 0,
            _ => 1,
        });
        assert_eq!(code, 0);
    }

    #[test]
    fn an_object_with_a_name_is_shown_by_its_name() {
        let name = Object::new("shown");
        let shown = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let object = Unnamed::create(&name.0, 0o600, None).unwrap();
        let reader = by_name(&name.0, object.read_only().unwrap());
        assert_ne!(shown(&reader), name.path());
        object.publish().unwrap();
        assert_eq!(shown(&by_name(&name.0, reader)), name.path());
        let another = Object::new("shown-not");
        let _another = create(&another.0, 0o600, None).unwrap();
        let mine = object.read_only().unwrap();
        assert!(is_same(&by_name(&another.0, mine), &object.into_file()), "another object is not this one");
    }

    #[test]
    fn a_fifo_or_a_link_under_the_name_is_refused_without_waiting() {
        let fifo = Object::new("fifo");
        mkfifo(&fifo.path(), Mode::from_bits_truncate(0o600)).unwrap();
        assert!(open(&fifo.0, false).is_err() && open(&fifo.0, true).is_err());
        assert!(exists(&fifo.0).unwrap());
        let link = Object::new("link");
        std::os::unix::fs::symlink("/etc/passwd", link.path()).unwrap();
        assert!(open(&link.0, false).is_err());
        assert!(exists(&link.0).unwrap());
        assert_eq!(create(&link.0, 0o600, None).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
