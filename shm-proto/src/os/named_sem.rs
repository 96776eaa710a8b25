//! POSIX named semaphores: `sem_t` in a file `/dev/shm/sem.NAME`, where C programs find them with `sem_open`.
//!
//! This module makes and maps the file itself. `sem_open` would apply the umask to the mode, and it returns an older mapping if
//! a name was removed and made again shortly after. The bytes in the file are the same.
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use super::file_id::FileId;
use super::map::Mapping;
use super::page::PAGE_SIZE;
use super::reserve;
use super::sem::{Semaphore, SemaphoreCell, Wait};
use super::shm;
use crate::error::{Result, SystemError};

/// Bytes of the file: one `sem_t`.
const LEN: u64 = 32;

/// A mapped named semaphore. Dropping it unmaps it; its name stays until [`unlink`].
#[derive(Debug)]
pub struct NamedSemaphore {
    mapping: Mapping,
    id: FileId,
}

/// The name for `shm_open` of the file that holds semaphore `name`.
pub(crate) fn object(name: &str) -> String {
    format!("/sem.{}", name.trim_start_matches('/'))
}

/// The path of the file that holds semaphore `name`.
#[must_use]
pub fn path(name: &str) -> String {
    format!("/dev/shm{}", object(name))
}

impl NamedSemaphore {
    /// Makes the semaphore `name` (`/NAME`) of value 0 with exactly this mode and group. When its name appears, it is complete.
    ///
    /// # Errors
    /// [`SystemError`]; its source is of kind `AlreadyExists` when there is one of this name.
    pub fn create(name: &str, mode: u32, gid: Option<u32>) -> Result<Self> {
        let object = shm::Unnamed::create(&object(name), mode, gid)?;
        reserve::now(object.file(), LEN)?;
        let made = Self::map(object.file(), name)?;
        made.semaphore().init()?;
        object.publish()?;
        Ok(made)
    }

    /// Opens the semaphore `name`.
    ///
    /// # Errors
    /// [`SystemError`], its source of kind `NotFound` when there is none, `InvalidData` when the file is no semaphore.
    pub fn open(name: &str) -> Result<Self> {
        let file = shm::open(&object(name), true)
            .map_err(|error| SystemError::new(format!("open semaphore {name}"), error.source))?;
        let len = reserve::length(file.as_fd())?;
        if len != LEN {
            let reason = format!("its file has {len} bytes, a semaphore has {LEN}");
            return Err(SystemError::new(
                format!("open semaphore {name}"),
                std::io::Error::new(std::io::ErrorKind::InvalidData, reason),
            ));
        }
        Self::map(file.as_fd(), name)
    }

    fn map(file: std::os::fd::BorrowedFd<'_>, name: &str) -> Result<Self> {
        let id = FileId::of(file).map_err(|error| SystemError::new(format!("look at semaphore {name}"), error))?;
        Ok(Self { mapping: Mapping::read_write(file, PAGE_SIZE)?, id })
    }

    fn semaphore(&self) -> Semaphore<'_> {
        // SAFETY: a cell of atomics at the start of a page. The file has memory behind it, and the processes that can write the
        // file are trusted not to cut it.
        Semaphore::new(unsafe { self.mapping.view::<SemaphoreCell>(0) })
    }

    /// The semaphore's file, to be compared with what has the name later.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Whether the name still leads to this semaphore.
    #[must_use]
    pub(crate) fn is_current(&self, name: &str) -> bool {
        FileId::at(path(name)).is_ok_and(|there| there == self.id)
    }

    /// See [`Semaphore::post`].
    pub fn post(&self) {
        self.semaphore().post();
    }

    /// See [`Semaphore::wake_all`].
    pub fn wake_all(&self) {
        self.semaphore().wake_all();
    }

    /// See [`Semaphore::try_wait`].
    #[must_use = "when it is false nothing was taken"]
    pub fn try_wait(&self) -> bool {
        self.semaphore().try_wait()
    }

    /// See [`Semaphore::wait_until`].
    pub fn wait_until(&self, deadline_ns: u64) -> Wait {
        self.semaphore().wait_until(deadline_ns)
    }

    /// See [`Semaphore::watch_until`].
    pub fn watch_until(&self, deadline_ns: u64) -> Wait {
        self.semaphore().watch_until(deadline_ns)
    }

    /// See [`Semaphore::watch_unless`].
    pub fn watch_unless(&self, deadline_ns: u64, is_enough: impl Fn() -> bool) -> Wait {
        self.semaphore().watch_unless(deadline_ns, is_enough)
    }

    /// See [`Semaphore::wake_sleepers`].
    pub fn wake_sleepers(&self) {
        self.semaphore().wake_sleepers();
    }

    /// See [`Semaphore::nudge`].
    pub fn nudge(&self) {
        self.semaphore().nudge();
    }

    /// See [`Semaphore::posts`].
    #[must_use]
    pub fn posts(&self) -> u32 {
        self.semaphore().posts()
    }

    /// See [`Semaphore::take_nudges`].
    pub fn take_nudges(&self) {
        self.semaphore().take_nudges();
    }

    /// See [`Semaphore::value`].
    #[must_use]
    pub fn value(&self) -> u32 {
        self.semaphore().value()
    }

    /// See [`Semaphore::take_all`].
    pub fn take_all(&self) -> u32 {
        self.semaphore().take_all()
    }
}

/// Removes the name. Processes that have the semaphore open keep it.
///
/// # Errors
/// [`SystemError`], its source of kind `NotFound` when there is none.
pub fn unlink(name: &str) -> Result<()> {
    shm::unlink(&object(name)).map_err(|error| SystemError::new(format!("unlink semaphore {name}"), error.source))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::io::ErrorKind;

    use nix::libc;
    use std::os::unix::fs::MetadataExt;

    use nix::sys::stat::{Mode, umask};

    use super::*;
    use crate::os::clock::monotonic_ns;
    use shm_test_support::{in_child, unique};

    struct Name(String);

    impl Drop for Name {
        fn drop(&mut self) {
            let _ = unlink(&self.0);
        }
    }

    #[test]
    fn the_c_library_opens_what_was_made_here_and_each_sees_the_others_posts() {
        let name = Name(format!("/{}", unique("sem")));
        let ours = NamedSemaphore::create(&name.0, 0o600, None).unwrap();
        let c_name = CString::new(name.0.as_str()).unwrap();
        let child = in_child(|| {
            // SAFETY: a live C string; the semaphore returned is used only when the call succeeded.
            unsafe {
                let theirs = libc::sem_open(c_name.as_ptr(), 0);
                if theirs == libc::SEM_FAILED || libc::sem_wait(theirs) != 0 || libc::sem_post(theirs) != 0 {
                    return 1;
                }
                libc::sem_post(theirs)
            }
        });
        ours.post();
        assert_eq!(child.exit_code(), 0);
        assert_eq!(ours.value(), 2);
        assert_eq!(ours.wait_until(monotonic_ns() + 10_000_000_000), Wait::Posted);
        assert_eq!((ours.take_all(), ours.value()), (1, 0));
    }

    #[test]
    fn the_mode_is_exact_under_any_umask() {
        let name = Name(format!("/{}", unique("sem-mode")));
        let child = in_child(|| {
            umask(Mode::from_bits_truncate(0o077));
            NamedSemaphore::create(&name.0, 0o666, None).is_err().into()
        });
        assert_eq!(child.exit_code(), 0);
        let found = std::fs::metadata(path(&name.0)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.len()), (0o666, 32));
    }

    #[test]
    fn a_name_taken_is_refused_and_one_made_anew_is_another_file() {
        let name = Name(format!("/{}", unique("sem-again")));
        let first = NamedSemaphore::create(&name.0, 0o600, None).unwrap();
        assert_eq!(NamedSemaphore::create(&name.0, 0o600, None).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(first.is_current(&name.0));
        unlink(&name.0).unwrap();
        assert!(!first.is_current(&name.0));
        let second = NamedSemaphore::create(&name.0, 0o600, None).unwrap();
        assert!(second.is_current(&name.0) && !first.is_current(&name.0));
        assert_eq!(NamedSemaphore::open(&name.0).unwrap().id(), second.id());
        unlink(&name.0).unwrap();
        assert_eq!(NamedSemaphore::open(&name.0).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_of_another_length_is_no_semaphore() {
        let name = Name(format!("/{}", unique("sem-long")));
        let file = shm::create(&object(&name.0), 0o600, None).unwrap();
        reserve::now(file.as_fd(), 33).unwrap();
        assert_eq!(NamedSemaphore::open(&name.0).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
