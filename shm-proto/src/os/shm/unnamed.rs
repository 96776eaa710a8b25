//! Objects that get their name when they are complete.
//!
//! | step | what another process sees |
//! |---|---|
//! | [`Unnamed::create`] | nothing |
//! | memory is reserved, contents are written, locks are taken | nothing |
//! | [`Unnamed::publish`] | the whole object, with its mode and group |
//!
//! The kernel frees an unnamed object with its last descriptor, so a process that is killed before `publish` leaves nothing.
//! Where `/dev/shm` has no unnamed files (`O_TMPFILE`), or `/proc` does not show descriptors, the object has a temporary name
//! until then, `.shmd-RANDOM.new`; [`sweep`](super::sweep) removes those that killed processes left.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, renameat};
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, fchmod, stat};
use nix::unistd::{Gid, fchown, linkat};

use super::{DIRECTORY, failed, path};
use crate::error::Result;
use crate::os::file_id::FileId;
use crate::os::{random, retry};

/// Before the random part of a temporary name.
pub(super) const BEFORE: &str = ".shmd-";
/// After it.
const AFTER: &str = ".new";

/// Whether a file of this name in `/dev/shm` has a temporary name, of the kind that begins with `before`.
pub(super) fn is_temporary(file_name: &str, before: &str) -> bool {
    let random = file_name.strip_prefix(before).and_then(|rest| rest.strip_suffix(AFTER));
    random.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// The permissions until [`Unnamed::publish`] sets the final ones.
fn private() -> Mode {
    Mode::S_IRUSR | Mode::S_IWUSR
}

/// An object that is being made. Dropping it before [`publish`](Self::publish) leaves nothing.
#[derive(Debug)]
pub struct Unnamed {
    file: OwnedFd,
    name: String,
    mode: u32,
    /// A temporary name, if the file system or the kernel needs one.
    temporary: Option<Temporary>,
}

/// A temporary name; removed when dropped.
#[derive(Debug)]
struct Temporary(String);

impl Unnamed {
    /// Makes an object that will be called `name` (`/PREFIX.NAME`), empty and open for reading and writing.
    ///
    /// The group is set at once, so that a group that this user may not give is refused before anything else is done.
    /// [`publish`](Self::publish) sets exactly `mode`, whatever the umask is.
    ///
    /// # Errors
    /// [`SystemError`]; its source is of kind `PermissionDenied` if this user may not give files to
    /// group `gid`.
    pub fn create(name: &str, mode: u32, gid: Option<u32>) -> Result<Self> {
        let made = match unnamed() {
            Ok(file) => Self { file, name: name.to_owned(), mode, temporary: None },
            // The errors of a file system, kernel or container that has no unnamed files or does not show descriptors.
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => Self::temporary(name, mode)?,
            Err(error) => return Err(failed("create", name, error)),
        };
        if let Some(gid) = gid {
            retry(|| fchown(&made.file, None, Some(Gid::from_raw(gid))))
                .map_err(|error| failed(format_args!("give to group {gid} the new"), name, error))?;
        }
        Ok(made)
    }

    /// The same with a temporary name.
    pub(super) fn temporary(name: &str, mode: u32) -> Result<Self> {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let temporary = format!("/{BEFORE}{:016x}{AFTER}", random::u64());
        let file =
            retry(|| shm_open(temporary.as_str(), flags, private())).map_err(|error| failed("create", name, error))?;
        // The umask may have taken bits that `read_only` needs.
        retry(|| fchmod(&file, private())).map_err(|error| failed("set mode 0600 on", &temporary, error))?;
        Ok(Self { file, name: name.to_owned(), mode, temporary: Some(Temporary(temporary)) })
    }

    /// The descriptor to fill the object with.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A read-only descriptor with an open file description of its own. Take it before [`publish`](Self::publish), because the
    /// final mode may not allow it.
    ///
    /// # Errors
    /// [`SystemError`] if descriptors have run out.
    pub fn read_only(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let opened = match &self.temporary {
            Some(Temporary(temporary)) => retry(|| shm_open(temporary.as_str(), flags, Mode::empty())),
            None => retry(|| open(link(&self.file).as_str(), flags - OFlag::O_NOFOLLOW, Mode::empty())),
        };
        opened.map_err(|error| failed("open for reading", &self.name, error))
    }

    /// Gives the object its mode and its name. From then on, every process that the mode allows can open it.
    ///
    /// # Errors
    /// [`SystemError`]; its source is of kind `AlreadyExists` if there is an object of this name. Then
    /// the call may be repeated.
    pub fn publish(&self) -> Result<()> {
        self.open_up()?;
        let to = path(&self.name);
        let linked = match &self.temporary {
            Some(Temporary(temporary)) => {
                linkat(AT_FDCWD, path(temporary).as_str(), AT_FDCWD, to.as_str(), AtFlags::empty())
            }
            None => linkat(AT_FDCWD, link(&self.file).as_str(), AT_FDCWD, to.as_str(), AtFlags::AT_SYMLINK_FOLLOW),
        };
        linked.map_err(|error| failed("create", &self.name, error))
    }

    /// As [`publish`](Self::publish), but replaces an object that has the name. At every moment the name leads to one of the two.
    ///
    /// # Errors
    /// [`SystemError`].
    pub fn replace(&mut self) -> Result<()> {
        self.open_up()?;
        let between = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                let name = format!("/{BEFORE}{:016x}{AFTER}", random::u64());
                let (from, to) = (link(&self.file), path(&name));
                linkat(AT_FDCWD, from.as_str(), AT_FDCWD, to.as_str(), AtFlags::AT_SYMLINK_FOLLOW)
                    .map_err(|error| failed("create", &self.name, error))?;
                Temporary(name)
            }
        };
        renameat(AT_FDCWD, path(&between.0).as_str(), AT_FDCWD, path(&self.name).as_str())
            .map_err(|error| failed("replace", &self.name, error))
    }

    /// Lets other processes open the object once it has a name.
    fn open_up(&self) -> Result<()> {
        retry(|| fchmod(&self.file, Mode::from_bits_truncate(self.mode)))
            .map_err(|error| failed(format_args!("set mode {:04o} on the new", self.mode), &self.name, error))
    }

    /// The descriptor, after [`publish`](Self::publish).
    #[must_use]
    pub fn into_file(self) -> OwnedFd {
        self.file
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = shm_unlink(self.0.as_str())
            // A sweep may have removed the name already, once the object has its own name.
            && error != Errno::ENOENT
        {
            log::warn!("event=unlink-failed segment={} reason={error}", self.0);
        }
    }
}

/// Where `/proc` shows a descriptor.
fn link(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// A file without a name that can be given one. `ENOENT` if `/proc` does not lead back to it.
fn unnamed() -> nix::Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = retry(|| open(DIRECTORY, flags, private()))?;
    // The umask may have taken bits that `read_only` needs.
    fchmod(&file, private())?;
    let seen = stat(link(&file).as_str()).map_err(|_| Errno::ENOENT)?;
    if FileId::of(&file)? == FileId::from(&seen) { Ok(file) } else { Err(Errno::ENOENT) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    use nix::sys::stat::{fstat, umask};

    use super::*;
    use crate::os::{reserve, shm};
    use shm_test_support::{Object, in_child};

    /// Both kinds, of the same name and mode.
    fn both(name: &str, mode: u32) -> [Unnamed; 2] {
        let usual = Unnamed::create(name, mode, None).unwrap();
        assert!(usual.temporary.is_none(), "/dev/shm has unnamed files on every Linux that shmd is made for");
        [usual, Unnamed::temporary(name, mode).unwrap()]
    }

    #[test]
    fn it_appears_whole_or_not_at_all() {
        let name = Object::new("whole");
        for object in both(&name.0, 0o640) {
            reserve::now(object.file(), 8192).unwrap();
            assert!(!shm::exists(&name.0).unwrap());
            object.publish().unwrap();
            let found = fs::metadata(name.path()).unwrap();
            assert_eq!((found.len(), found.mode() & 0o7777), (8192, 0o640));
            let file = object.into_file();
            assert_eq!(fstat(&file).unwrap().st_ino, found.ino());
            assert_eq!(fs::metadata(name.path()).unwrap().nlink(), 1, "a temporary name is gone");
            shm::unlink(&name.0).unwrap();
        }
    }

    #[test]
    fn it_takes_the_place_of_another_and_leaves_nothing_beside_it() {
        let name = Object::new("replaced");
        let mut before = fstat(shm::create(&name.0, 0o600, None).unwrap()).unwrap().st_ino;
        for mut object in both(&name.0, 0o640) {
            reserve::now(object.file(), 8192).unwrap();
            assert_eq!(fs::metadata(name.path()).unwrap().ino(), before);
            object.replace().unwrap();
            let found = fs::metadata(name.path()).unwrap();
            let ours = fstat(object.file()).unwrap();
            assert_eq!((found.len(), found.mode() & 0o7777, found.nlink()), (8192, 0o640, 1));
            assert!(found.ino() == ours.st_ino && found.ino() != before);
            before = found.ino();
        }
    }

    #[test]
    fn one_that_is_dropped_leaves_nothing() {
        let name = Object::new("dropped");
        for object in both(&name.0, 0o640) {
            let temporary = object.temporary.as_ref().map(|temporary| path(&temporary.0));
            drop(object);
            assert!(!shm::exists(&name.0).unwrap());
            assert!(temporary.is_none_or(|left| !fs::exists(left).unwrap()));
        }
    }

    #[test]
    fn a_name_that_is_taken_is_refused_and_can_be_tried_again() {
        let name = Object::new("taken");
        for object in both(&name.0, 0o600) {
            let _first = shm::create(&name.0, 0o600, None).unwrap();
            match object.publish() {
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
                other => panic!("{other:?}"),
            }
            shm::unlink(&name.0).unwrap();
            object.publish().unwrap();
            shm::unlink(&name.0).unwrap();
        }
    }

    #[test]
    fn a_read_only_descriptor_is_to_be_had_whatever_mode_and_umask_are() {
        let name = Object::new("read-only");
        let child = in_child(|| {
            umask(Mode::from_bits_truncate(0o777));
            i32::from(Unnamed::create(&name.0, 0o000, None).and_then(|object| object.read_only()).is_err())
        });
        assert_eq!(child.exit_code(), 0);
        let object = Unnamed::temporary(&name.0, 0o000).unwrap();
        let reader = object.read_only().unwrap();
        assert_eq!(FileId::of(&reader), FileId::of(object.file()));
        assert!(reserve::now(reader.as_fd(), 4096).is_err());
    }
}
