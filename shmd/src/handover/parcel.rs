//! The memfd between two programs of one process.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shm_proto::internal::os::{inherited, memory, sealed};

/// Where bytes lie in the memfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    at: u64,
    len: u64,
}

/// What is being packed. Dropping it takes everything back: the originals are still open and whole.
#[derive(Debug)]
pub(crate) struct Parcel {
    memfd: File,
    at: u64,
    /// Duplicates that stay open in the next program.
    kept: Vec<OwnedFd>,
}

impl Parcel {
    /// Nothing yet.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { memfd: sealed::memfd("shmd-handover")?.into(), at: 0, kept: Vec::new() })
    }

    /// Leaves a descriptor to the next program, under this number.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn fd(&mut self, fd: impl AsFd) -> io::Result<i32> {
        let kept = inherited::keep(fd.as_fd())?;
        let number = kept.as_raw_fd();
        self.kept.push(kept);
        Ok(number)
    }

    /// Leaves bytes to it.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<Blob> {
        let blob = Blob { at: self.at, len: bytes.len() as u64 };
        memory::take(blob.len).map_err(|free| {
            let text = format!("no memory to hand over {} bytes of unfinished messages: {free}", blob.len);
            io::Error::new(io::ErrorKind::OutOfMemory, text)
        })?;
        self.memfd.write_all(bytes)?;
        self.at += blob.len;
        Ok(blob)
    }

    /// Closes the parcel, with the text that says what is in it. The number of the memfd in the next program.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn close(&mut self, contents: &impl Serialize) -> io::Result<i32> {
        let text = serde_json::to_vec(contents)?;
        self.memfd.write_all(&text)?;
        self.memfd.write_all(&self.at.to_le_bytes())?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&self.memfd, FcntlArg::F_ADD_SEALS(seals))?;
        let memfd = self.memfd.try_clone()?;
        self.fd(memfd)
    }
}

/// The same in the next program.
#[derive(Debug)]
pub(crate) struct Luggage(File);

impl Luggage {
    /// Opens the parcel whose memfd has this number. Returns the text in it, too.
    ///
    /// # Errors
    /// When it is not a parcel.
    pub(crate) fn open<T: DeserializeOwned>(number: i32) -> io::Result<(T, Self)> {
        let file = File::from(inherited::take(number)?);
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("what was handed over {what}"));
        let mut place = [0; 8];
        let end = file.metadata()?.len().checked_sub(8).ok_or_else(|| bad("is empty"))?;
        file.read_exact_at(&mut place, end)?;
        let at = u64::from_le_bytes(place);
        let len = end.checked_sub(at).ok_or_else(|| bad("has no text"))?;
        let this = Self(file);
        let text = this.bytes(Blob { at, len })?;
        Ok((serde_json::from_slice(&text)?, this))
    }

    /// A descriptor, by the number that it was left under. Each can be taken once.
    ///
    /// # Errors
    /// If no descriptor was left under this number.
    pub(crate) fn fd(&self, number: i32) -> io::Result<OwnedFd> {
        inherited::take(number)
    }

    /// The bytes that lie there.
    ///
    /// # Errors
    /// When there are not so many.
    pub(crate) fn bytes(&self, blob: Blob) -> io::Result<Vec<u8>> {
        let size = self.0.metadata()?.len();
        if blob.at.checked_add(blob.len).is_none_or(|end| end > size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(blob.len).map_err(io::Error::other)?];
        self.0.read_exact_at(&mut bytes, blob.at)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_once() {
        let mut parcel = Parcel::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let (first, second) = (parcel.bytes(b"one").unwrap(), parcel.bytes(b"three").unwrap());
        let number = parcel.fd(&reader).unwrap();
        let memfd = parcel.close(&(first, second, number)).unwrap();
        assert!(parcel.memfd.write_all(b"more").is_err(), "it is sealed");
        // As execve would leave it: what is open under the numbers has no owner any more.
        let Parcel { kept, .. } = parcel;
        for fd in kept {
            let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
        }
        drop(reader);
        let ((one, three, pipe), luggage): ((Blob, Blob, i32), Luggage) = Luggage::open(memfd).unwrap();
        assert_eq!((luggage.bytes(one).unwrap(), luggage.bytes(three).unwrap()), (b"one".to_vec(), b"three".to_vec()));
        assert!(luggage.bytes(Blob { at: 1, len: u64::MAX }).is_err());
        let mut pipe = File::from(luggage.fd(pipe).unwrap());
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        assert!(luggage.fd(number).is_err() && Luggage::open::<(Blob, Blob, i32)>(memfd).is_err());
    }
}
