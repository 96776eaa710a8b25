//! One page of memory that two processes share and that neither of them can take away from the other.
//!
//! A page is a memfd with memory behind it, sealed against shrinking, growing and further seals. Each side may write any byte
//! of the page, but cannot make an access of the other side fault.
#![allow(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::map::Mapping;
use super::{retry, sealed};
use crate::error::{ProtocolError, Result, SystemError};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// The contents of a page.
///
/// # Safety
/// The type is [`PAGE_SIZE`] bytes of atomics and padding, for which all zeroes is a value.
pub unsafe trait PageLayout {
    /// Turns a fresh page of zeroes into a page that may be handed out.
    ///
    /// # Errors
    /// If a semaphore in the page cannot be made.
    fn prepare(&self) -> Result<()>;
}

/// A sealed memfd of one page, mapped for reading and writing. Dropping it unmaps it.
pub struct SharedPage<T> {
    /// The first byte of the mapping, looked up once, because every message looks at the page.
    page: NonNull<T>,
    _mapping: Mapping,
}

// SAFETY: the pointer leads into the mapping, which this value owns. A mapping belongs to the process and not to a thread, and it
// contains only atomics.
unsafe impl<T: PageLayout> Send for SharedPage<T> {}
// SAFETY: as above.
unsafe impl<T: PageLayout> Sync for SharedPage<T> {}

const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

impl<T: PageLayout> SharedPage<T> {
    /// A new page, prepared as its layout says, and the descriptor to hand on. `/proc/PID/maps` shows `name`.
    ///
    /// # Errors
    /// [`SystemError`] if there is no memory or no descriptor left.
    pub fn create(name: &str) -> Result<(Self, OwnedFd)> {
        let failed = |step: &str| {
            let action = format!("{step} the shared page {name:?} of {PAGE_SIZE} bytes");
            move |error: Errno| SystemError::new(action, error)
        };
        let fd = sealed::memfd(name).map_err(failed("create"))?;
        retry(|| ftruncate(&fd, PAGE_SIZE as i64)).map_err(failed("size"))?;
        retry(|| fallocate(&fd, FallocateFlags::empty(), 0, PAGE_SIZE as i64)).map_err(failed("reserve"))?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS)).map_err(failed("seal"))?;
        let page = Self::map(fd.as_fd())?;
        page.prepare()?;
        Ok((page, fd))
    }

    /// Maps a page that another process made, after checking that nobody can resize it.
    ///
    /// # Errors
    /// [`ProtocolError::Broken`] if the descriptor is not such a page, [`ProtocolError::System`] if it cannot be mapped.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Self, ProtocolError> {
        let size = fstat(fd).map_err(|error| SystemError::new("look at a received page", error))?.st_size;
        if size != PAGE_SIZE as i64 {
            return Err(ProtocolError::Broken(format!(
                "a shared page has {PAGE_SIZE} bytes, the one received has {size}"
            )));
        }
        // Only a memfd has seals, so this also refuses files, devices and everything else of the right size.
        let seals = fcntl(fd, FcntlArg::F_GET_SEALS)
            .map_err(|error| ProtocolError::Broken(format!("the page received is not a memfd: {error}")))?;
        let seals = SealFlag::from_bits_retain(seals);
        if !seals.contains(SEALS) {
            return Err(ProtocolError::Broken(format!(
                "the page received can still be resized: its seals are {seals:?}"
            )));
        }
        Ok(Self::map(fd)?)
    }

    fn map(fd: BorrowedFd<'_>) -> Result<Self> {
        let mapping = Mapping::read_write(fd, PAGE_SIZE)?;
        // SAFETY: `T` is a page of atomics (the contract of `PageLayout`). The memfd keeps this size, because the seals were
        // set or checked before it was mapped. The mapping is writable.
        let page = NonNull::from(unsafe { mapping.view::<T>(0) });
        Ok(Self { page, _mapping: mapping })
    }
}

impl<T: PageLayout> Deref for SharedPage<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the pointer was made from a reference into the mapping, which lives as long as this value and never moves.
        unsafe { self.page.as_ref() }
    }
}

impl<T: PageLayout + fmt::Debug> fmt::Debug for SharedPage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedPage").field(&**self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::reserve;
    use crate::ring::layout::{CURSOR_JOINING, LeasePage, ReaderPage};
    use shm_test_support::memory;
    use std::sync::atomic::Ordering;

    #[test]
    fn both_sides_of_a_page_see_what_the_other_writes() {
        let (ours, fd) = SharedPage::<ReaderPage>::create("shared").unwrap();
        let theirs = SharedPage::<ReaderPage>::open(fd.as_fd()).unwrap();
        drop(fd);
        assert_eq!(theirs.line.cursor.load(Ordering::Relaxed), CURSOR_JOINING);
        theirs.line.cursor.store(64, Ordering::Relaxed);
        assert_eq!(ours.line.cursor.load(Ordering::Relaxed), 64);
    }

    #[test]
    fn a_page_cannot_be_resized_or_unsealed() {
        let (_page, fd) = SharedPage::<LeasePage>::create("sealed").unwrap();
        for len in [0, 4095, 4097, 8192] {
            assert_eq!(ftruncate(&fd, len), Err(Errno::EPERM), "{len}");
        }
        assert_eq!(fallocate(&fd, FallocateFlags::empty(), 0, 8192), Err(Errno::EPERM));
        assert_eq!(fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)), Err(Errno::EPERM));
    }

    #[test]
    fn a_page_is_closed_on_exec() {
        let (_page, fd) = SharedPage::<LeasePage>::create("cloexec").unwrap();
        assert_eq!(fcntl(&fd, FcntlArg::F_GETFD), Ok(nix::libc::FD_CLOEXEC));
    }

    #[test]
    fn what_somebody_could_still_resize_is_not_mapped() {
        let refusal = |fd: &OwnedFd| SharedPage::<ReaderPage>::open(fd.as_fd()).unwrap_err().to_string();
        let unsealed = memory("unsealed");
        assert!(refusal(&unsealed).contains("has 0"), "{}", refusal(&unsealed));
        reserve::now(unsealed.as_fd(), PAGE_SIZE as u64).unwrap();
        assert!(refusal(&unsealed).contains("can still be resized"), "{}", refusal(&unsealed));
        fcntl(&unsealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).unwrap();
        assert!(refusal(&unsealed).contains("can still be resized"), "more seals could be added");

        let dir = shm_test_support::TempDir::new();
        let path = dir.join("page");
        std::fs::write(&path, [0; PAGE_SIZE]).unwrap();
        let file = OwnedFd::from(std::fs::File::options().read(true).write(true).open(&path).unwrap());
        assert!(SharedPage::<ReaderPage>::open(file.as_fd()).is_err());
    }
}
