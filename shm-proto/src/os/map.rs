//! Mappings of shared memory.
//!
//! A segment is mapped once, at the largest size that it may have. A mapping of 64 GiB over an object of 1 MiB costs microseconds
//! and no memory, growth needs no other mapping, and no address ever changes. An access behind the end of the object is a SIGBUS,
//! so every access is checked against the published capacity first.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::{align_of, size_of};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

use super::memory::address_space;
use crate::error::{Result, SystemError};
use crate::size::Bytes;

/// A shared mapping of the first bytes of an object; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and this type hands out no reference by itself.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives a raw pointer and numbers, and `view` has its own contract.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes for reading. A write through the pointer is a SIGSEGV.
    ///
    /// # Errors
    /// [`SystemError`] if the kernel refuses, for instance because of a limit on address space (`ulimit -v`).
    pub fn read_only(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        Self::new(fd, len, ProtFlags::PROT_READ)
    }

    /// Maps `len` bytes for reading and writing; the descriptor must have been opened for both.
    ///
    /// # Errors
    /// As [`read_only`](Self::read_only).
    pub fn read_write(fd: BorrowedFd<'_>, len: usize) -> Result<Self> {
        Self::new(fd, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    fn new(fd: BorrowedFd<'_>, len: usize, protection: ProtFlags) -> Result<Self> {
        let what = || {
            let access = if protection.contains(ProtFlags::PROT_WRITE) { "reading and writing" } else { "reading" };
            format!("map {} of shared memory for {access}", Bytes(len as u64))
        };
        let size = NonZeroUsize::new(len).ok_or_else(|| SystemError::new(what(), nix::Error::EINVAL))?;
        // Swap is not reserved for the whole length: most of it may never exist.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: the kernel chooses a free range, so no memory of this process is replaced.
        let start = unsafe { mmap(None, size, protection, flags, fd, 0) }.map_err(|error| match address_space() {
            Some(free) if error == nix::Error::ENOMEM => {
                let reason = format!("{}, free {free}", error.desc());
                SystemError::new(what(), std::io::Error::new(std::io::ErrorKind::OutOfMemory, reason))
            }
            _ => SystemError::new(what(), error),
        })?;
        Ok(Self { start, len })
    }

    /// Asks for huge pages behind the mapping: fewer address translations to look up for large rings.
    ///
    /// The kernel gives huge pages if shared memory may have them (`huge=advise` or a stronger setting on the mount of
    /// `/dev/shm`) and the range is aligned and long enough. Otherwise this changes nothing. A refusal is not an error.
    pub(crate) fn advise_huge(&self) {
        // SAFETY: the range is this mapping's, and the advice changes no contents.
        let advised = unsafe { madvise(self.start, self.len, MmapAdvise::MADV_HUGEPAGE) };
        if let Err(e) = advised {
            log::debug!("no huge pages for a mapping of {}: {e}", Bytes(self.len as u64));
        }
    }

    /// Enters the first `len` bytes into this process's page table now, so that their first use costs no page fault (0.25 to
    /// 1 us for every 4 KiB). They must have memory behind them.
    ///
    /// Needs Linux 5.14. If the kernel refuses, each first use costs its page fault.
    pub(crate) fn populate(&self, len: usize, writable: bool) {
        let advice = if writable { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        let len = len.min(self.len);
        // SAFETY: the range is inside this mapping, and populating changes no contents.
        if unsafe { libc::madvise(self.start.as_ptr(), len, advice) } != 0 {
            log::debug!("pages are not entered ahead: {}", Errno::last());
        }
    }

    /// The first byte.
    #[must_use]
    pub fn ptr(&self) -> *mut u8 {
        self.start.as_ptr().cast()
    }

    /// Bytes mapped; memory need not exist behind all of them.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The structure at `offset`.
    ///
    /// # Safety
    /// `T` consists of atomics and plain padding only (another process may write it at any time), the object has
    /// memory behind the whole of it and keeps it as long as the reference lives, and nothing is stored through it
    /// when the mapping is read-only.
    ///
    /// # Panics
    /// If the structure does not lie inside the mapping or is not aligned.
    #[must_use]
    pub unsafe fn view<T>(&self, offset: usize) -> &T {
        let end = offset.checked_add(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.len), "{offset} + {} of {}", size_of::<T>(), self.len);
        let place = self.ptr().wrapping_add(offset).cast::<T>();
        assert!((place as usize).is_multiple_of(align_of::<T>()), "{offset} for alignment {}", align_of::<T>());
        // SAFETY: the structure is inside the mapping and aligned, as just checked. The caller promises the rest.
        unsafe { &*place }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is exactly the range that `new` mapped. References into it borrow `self`, so none is left.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::os::reserve;
    use shm_test_support::memory;

    #[test]
    fn sixty_four_gigabytes_over_a_small_object_follow_its_growth() {
        let object = memory("mapped");
        reserve::now(object.as_fd(), 1 << 20).unwrap();
        let writer = Mapping::read_write(object.as_fd(), 64 << 30).unwrap();
        let reader = Mapping::read_only(object.as_fd(), 64 << 30).unwrap();
        assert_eq!(reader.len(), 64 << 30);
        reserve::now(object.as_fd(), 2 << 20).unwrap();
        for offset in [0, (1 << 20) - 8, (2 << 20) - 8] {
            // SAFETY: an atomic inside the two megabytes reserved above.
            let (stored, seen) = unsafe { (writer.view::<AtomicU64>(offset), reader.view::<AtomicU64>(offset)) };
            stored.store(offset as u64 + 1, Ordering::Relaxed);
            assert_eq!(seen.load(Ordering::Relaxed), offset as u64 + 1);
        }
    }

    #[test]
    fn pages_entered_ahead_are_resident_and_what_has_no_memory_is_no_error() {
        let object = memory("populated");
        reserve::now(object.as_fd(), 1 << 20).unwrap();
        for (writable, mapping) in [
            (false, Mapping::read_only(object.as_fd(), 8 << 20).unwrap()),
            (true, Mapping::read_write(object.as_fd(), 8 << 20).unwrap()),
        ] {
            mapping.advise_huge();
            mapping.populate(1 << 20, writable);
            mapping.populate(usize::MAX, writable);
            let rss = |map: &Mapping| {
                let name = format!("{:x}-", map.ptr() as usize);
                let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
                let ours = smaps.lines().skip_while(|line| !line.starts_with(&name));
                let rss = ours.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
                rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
            };
            assert!(rss(&mapping) >= 1024, "{} KiB are resident", rss(&mapping));
        }
    }

    #[test]
    fn a_refused_mapping_says_how_much_and_for_what() {
        let object = memory("refused");
        let message = Mapping::read_write(object.as_fd(), 0).unwrap_err().to_string();
        assert!(message.contains("map 0 of shared memory for reading and writing"), "{message}");
    }

    #[test]
    #[should_panic(expected = "4096 + 8 of 4096")]
    fn a_view_beyond_the_mapping_is_a_panic_not_an_access() {
        let object = memory("beyond");
        reserve::now(object.as_fd(), 4096).unwrap();
        let mapping = Mapping::read_only(object.as_fd(), 4096).unwrap();
        // SAFETY: never made, which is what this test is about.
        let _ = unsafe { mapping.view::<AtomicU64>(4096) };
    }
}
