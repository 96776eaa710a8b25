//! Descriptors that came with a request. They may be anything: no call but closing and asking for seals is safe from a wait.

use std::io;
use std::mem::take;
use std::os::fd::OwnedFd;

use shm_proto::internal::os::closing;
use shm_proto::{ErrorKind, Refusal};

/// Descriptors that came with a request, and are closed elsewhere.
#[derive(Debug)]
pub(crate) struct Given(Vec<OwnedFd>);

impl Given {
    pub(crate) fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds)
    }

    /// The pieces of shared memory that have to come with a request. They are copies, and closing those is never the end of what
    /// may be a lot of memory.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(crate) fn memory<const N: usize>(&self) -> Result<[OwnedFd; N], Refusal> {
        let (bad, got) = (|why: String| Refusal::new(ErrorKind::BadRequest, why), self.0.len());
        if got != N {
            return Err(bad(format!("{got} descriptors came with it, not {N}")));
        }
        if let Some(at) = self.0.iter().position(|fd| !closing::is_memory(fd)) {
            return Err(bad(format!("descriptor {} of {got} that came with it is no shared memory", at + 1)));
        }
        let copies = self.0.iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>();
        let copies = copies.map_err(|e| Refusal::new(ErrorKind::Internal, format!("duplicate a descriptor: {e}")))?;
        copies.try_into().map_err(|_| bad(format!("{got} descriptors came with it, not {N}")))
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        closing::close(take(&mut self.0));
    }
}
