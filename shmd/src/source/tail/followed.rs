//! An open file that is read from some place on.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shm_proto::Result;
use shm_proto::internal::framing::{self, Framing};

use super::failed;
use super::place::born_ns;
use shm_proto::internal::os::file_id::FileId;

#[derive(Debug)]
pub(super) struct Followed {
    pub(super) file: File,
    pub(super) id: FileId,
    pub(super) born_ns: u64,
    /// Where the next read begins.
    pub(super) at: u64,
    pub(super) stop: Stop,
}

/// When a file that gives no more bytes has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stop {
    /// Not at all: it may grow.
    Never,
    /// When it has been read to its end.
    AtEnd,
    /// At once.
    Now,
}

impl Followed {
    /// An open file, from there on.
    ///
    /// # Errors
    /// When the kernel does not tell which file it is.
    pub(super) fn known(file: File, at: u64, stop: Stop) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { id: FileId::from(&found), born_ns: born_ns(&found), file, at, stop })
    }

    /// Whether the byte before the place ends a message.
    pub(super) fn is_at_beginning_of_message(&self, framing: Framing) -> bool {
        let delimiter = if framing == Framing::Nul { 0 } else { b'\n' };
        let mut byte = [0];
        match self.at.checked_sub(1) {
            None => true,
            Some(before) => self.file.read_exact_at(&mut byte, before).is_ok() && byte[0] == delimiter,
        }
    }

    pub(super) fn go_to_end(&mut self, path: &Path) -> Result<()> {
        self.at = self.file.metadata().map_err(|e| failed(path, e))?.len();
        Ok(())
    }

    /// Where it is left, if so many of the bytes that were read belong to no message yet.
    pub(super) fn left(&self, unfinished: u64) -> Left {
        let FileId { device, inode } = self.id;
        Left { device, inode, born_ns: self.born_ns, at: self.at.saturating_sub(unfinished) }
    }

    /// From its beginning.
    pub(super) fn rewound(self) -> Self {
        Self { at: 0, stop: Stop::Never, ..self }
    }
}

/// Which file was left, and at which place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    device: u64,
    inode: u64,
    born_ns: u64,
    pub(super) at: u64,
}

impl Left {
    /// Whether it is this file. A name may lead back to a file, and a file that could not be read is opened again.
    pub(super) fn is_in(&self, file: &Followed) -> bool {
        let id = FileId { device: self.device, inode: self.inode };
        (id, self.born_ns) == (file.id, file.born_ns)
    }
}

impl Read for Followed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop == Stop::Now {
            return Ok(0);
        }
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        if n == 0 && self.stop == Stop::Never {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    }
}

impl framing::Input for Followed {
    fn readable(&self) -> Option<usize> {
        let left = self.file.metadata().ok()?.len().saturating_sub(self.at);
        Some(if self.stop == Stop::Now { 0 } else { usize::try_from(left).unwrap_or(usize::MAX) })
    }
}
