//! Memory with and without a name.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::dir::unique;

/// The name of a shared memory object for one test; unlinked when dropped.
pub struct Object(pub String);

impl Object {
    pub fn new(name: &str) -> Self {
        Self(format!("/{}", unique(name)))
    }

    pub fn path(&self) -> PathBuf {
        format!("/dev/shm{}", self.0).into()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = nix::sys::mman::shm_unlink(self.0.as_str());
    }
}

/// An anonymous file that holds nothing yet.
pub fn memory(name: &str) -> OwnedFd {
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap()
}
