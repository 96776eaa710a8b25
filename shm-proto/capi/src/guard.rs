//! Tells a parent's handle from a child's.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use shm_proto::SystemError;

use crate::failure::Failure;
use crate::result::ERR_FORKED;

const SIZE: usize = 4096;

/// A page that a child after `fork` finds wiped, so that a look costs one load and no system call.
#[derive(Debug)]
pub(crate) struct Guard(NonNull<AtomicU32>);

impl Guard {
    pub(crate) fn new() -> Result<Self, Failure> {
        let failed = |errno| Failure::from(shm_proto::Error::from(SystemError::new("map a page for a handle", errno)));
        let size = NonZeroUsize::new(SIZE).unwrap_or(NonZeroUsize::MIN);
        // SAFETY: a new private mapping, which replaces no other.
        let page =
            unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE) }
                .map_err(failed)?;
        let guard = Guard(page.cast());
        // An emulator may not know the advice. There, a child is not told that a handle is its parent's.
        // SAFETY: the page was mapped just now, and its contents may be wiped.
        unsafe { libc::madvise(page.as_ptr(), SIZE, libc::MADV_WIPEONFORK) };
        guard.word().store(1, Ordering::Relaxed);
        Ok(guard)
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped as long as this value lives, and is only accessed as this word.
        unsafe { self.0.as_ref() }
    }

    /// Whether the process that made the handle is this one.
    #[inline(always)]
    pub(crate) fn is_ours(&self) -> bool {
        self.word().load(Ordering::Relaxed) != 0
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_ours() {
            return Ok(());
        }
        let message = "the handle belongs to the parent of this process; a child after fork() has to attach by itself";
        Err(Failure::new(ERR_FORKED, message))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: this value mapped the page, and nothing refers to it any more.
        let _ = unsafe { munmap(self.0.cast(), SIZE) };
    }
}

// SAFETY: the page belongs to the process, not to a thread, and is only accessed as an atomic word.
unsafe impl Send for Guard {}
