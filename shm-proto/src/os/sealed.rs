//! Bytes that one process hands to others, and that nobody can change any more: a sealed memfd.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{ProtocolError, Result, SystemError};

const SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// An empty memfd that can be sealed, and is closed on exec.
///
/// # Errors
/// What the kernel refuses.
pub fn memfd(name: &str) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag. The processes that hold the memfd could then execute it.
    let not_executable = MFdFlags::from_bits_retain(nix::libc::MFD_NOEXEC_SEAL);
    match memfd_create(name, flags | not_executable) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        made => made,
    }
}

/// A memfd with these bytes. `/proc/PID/maps` shows `name`.
///
/// # Errors
/// [`SystemError`] if there is no memory or no descriptor left.
pub fn create(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let failed = |step: &str| format!("{step} the memfd {name:?} of {} bytes", bytes.len());
    let file = File::from(memfd(name).map_err(|e| SystemError::new(failed("create"), e))?);
    file.write_all_at(bytes, 0).map_err(|e| SystemError::new(failed("fill"), e))?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS)).map_err(|e| SystemError::new(failed("seal"), e))?;
    Ok(file.into())
}

/// The bytes of a memfd that another process has made, at most `most`.
///
/// # Errors
/// [`ProtocolError::Broken`] if there are more, or if they may still change; [`ProtocolError::System`] if they cannot be read.
pub fn read(fd: OwnedFd, most: u64) -> Result<Vec<u8>, ProtocolError> {
    let seals = fcntl(&fd, FcntlArg::F_GET_SEALS)
        .map_err(|e| ProtocolError::Broken(format!("the descriptor received is no memfd: {e}")))?;
    let seals = SealFlag::from_bits_retain(seals);
    if !seals.contains(SEALS) {
        let reason = format!("the bytes received can still be changed: the seals of their memfd are {seals:?}");
        return Err(ProtocolError::Broken(reason));
    }
    let file = File::from(fd);
    let len = file.metadata().map_err(|e| SystemError::new("look at a received memfd", e))?.len();
    if len > most {
        return Err(ProtocolError::Broken(format!("the memfd received has {len} bytes, at most {most} were expected")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    // At a place, because the processes that have the memfd share its position.
    file.read_exact_at(&mut bytes, 0).map_err(|e| SystemError::new("read a received memfd", e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_any_number_of_times_and_cannot_be_changed() {
        let fd = create("text", b"some bytes").unwrap();
        for _ in 0..2 {
            assert_eq!(read(fd.try_clone().unwrap(), 10).unwrap(), b"some bytes");
        }
        assert!(read(fd.try_clone().unwrap(), 9).unwrap_err().to_string().contains("10 bytes, at most 9"));
        assert!(File::from(fd).write_all_at(b"x", 0).is_err());
        assert_eq!(read(create("none", b"").unwrap(), 0).unwrap(), b"");
    }

    #[test]
    fn what_may_still_change_is_not_read() {
        let file = memfd_create("open", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert!(read(file, 10).unwrap_err().to_string().contains("can still be changed"));
        let file = File::open("/dev/null").unwrap();
        assert!(read(file.into(), 10).unwrap_err().to_string().contains("no memfd"));
    }
}
