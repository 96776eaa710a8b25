//! The three objects as both roles see them: the mapped header, the file, the semaphores.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{AccessFlags, eaccess, geteuid};

use super::Names;
use super::layout::{DATA, FIRST, HEADER_SIZE, Header, PAGE};
use crate::error::SystemError;
use crate::handoff::error::{HandoffError, Result};
use crate::os::file_id::FileId;
use crate::os::map::Mapping;
use crate::os::mutex::{Guard, Lock, MUTEX_BYTES, RobustMutex};
use crate::os::named_sem::{self, NamedSemaphore};
use crate::os::{process, reserve, shm};

/// The segment, with its header mapped.
#[derive(Debug)]
pub(super) struct Segment {
    name: String,
    file: fs::File,
    mapping: Mapping,
    id: FileId,
}

/// All three objects.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) names: Names,
    pub(super) segment: Segment,
    pub(super) avail: NamedSemaphore,
    pub(super) done: Arc<NamedSemaphore>,
}

/// The time between two checks of a waiting reader that the names still lead to the objects that it has open, in nanoseconds.
pub(super) const LOOK: u64 = 250_000_000;
/// The time between two looks for objects that do not exist yet, in nanoseconds.
pub(super) const SEARCH: u64 = 20_000_000;

/// Where the file of a segment is.
pub(super) fn path(segment: &str) -> String {
    format!("/dev/shm{segment}")
}

/// The error for objects that this process may not open. It names the first such object, its mode and its owner.
fn shut_out(names: &Names) -> SystemError {
    let objects = [
        (&names.segment, path(&names.segment)),
        (&names.avail, named_sem::path(&names.avail)),
        (&names.done, named_sem::path(&names.done)),
    ];
    let rights = AccessFlags::R_OK | AccessFlags::W_OK;
    let closed = objects.iter().find(|(_, path)| eaccess(path.as_str(), rights).is_err());
    let (name, path) = closed.unwrap_or(&objects[0]);
    let facts = fs::symlink_metadata(path).map_or_else(
        |_| String::new(),
        |found| {
            let (user, group) = (process::user_name(found.uid()), process::group_name(found.gid()));
            format!(": it has mode {:04o} and belongs to user {user} and group {group}", found.mode() & 0o7777)
        },
    );
    let me = process::user_name(geteuid().as_raw());
    let reason = format!(
        "permission denied to user {me}{facts}; both sides of a handoff read and write the objects, which need the permissions \
         0660 and a group that both are in, or 0666"
    );
    SystemError::new(format!("open handoff object {name}"), io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Whether an error says that there is no such object.
pub(super) fn is_missing(error: &SystemError) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl Segment {
    /// Maps the header of a segment that is at least a page long.
    pub(super) fn map(name: &str, file: OwnedFd) -> Result<Self, SystemError> {
        let id = FileId::of(&file).map_err(|e| SystemError::new(format!("look at shared memory {name}"), e))?;
        let mapping = Mapping::read_write(file.as_fd(), PAGE as usize)?;
        Ok(Self { name: name.to_owned(), file: file.into(), mapping, id })
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: atomics at the start of the first page, which the file had when it was mapped. The processes that can write the
        // file are trusted not to cut it (see the documentation of the module).
        unsafe { self.mapping.view::<Header>(0) }
    }

    /// Stores the ready flag and the first bytes of the message in one piece, so that a process that dies here has stored both or
    /// neither. The caller holds the mutex.
    pub(super) fn place(&self, is_ready: bool, first: [u8; FIRST]) {
        let mut bytes = [0; 4 + FIRST];
        bytes[..4].copy_from_slice(&i32::from(is_ready).to_ne_bytes());
        bytes[4..].copy_from_slice(&first);
        let at = ptr::from_ref(self.header()).wrapping_byte_add(offset_of!(Header, ready_flag));
        // SAFETY: 8 bytes inside the mapped page, at a multiple of 8, and in fields that are atomics. This process accesses them
        // in no other thread, and other processes that store here hold the mutex.
        let both = unsafe { &*at.cast::<AtomicU64>() };
        // Release pairs with the Acquire load of a reader of this library. The mutex orders this for C programs.
        both.store(u64::from_ne_bytes(bytes), Ordering::Release);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Which file it is.
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn mutex(&self) -> RobustMutex<'_> {
        RobustMutex::new(&self.header().mutex)
    }

    /// The file's length in bytes.
    pub(super) fn len(&self) -> Result<u64, SystemError> {
        reserve::length(self.fd())
    }

    /// Takes the mutex, waiting until `deadline_ns` at the latest. `None` if the mutex is not recoverable.
    pub(super) fn lock(&self, deadline_ns: u64) -> Result<Option<Guard<'_>>> {
        if !self.mutex().is_sane() {
            let reason = format!(
                "what stands in its first {MUTEX_BYTES} bytes is no process-shared mutex: a peer has overwritten it, or the \
                 segment is another program's"
            );
            return Err(self.corrupt(reason));
        }
        match self.mutex().lock_until(deadline_ns)? {
            Lock::Held(guard) => Ok(Some(guard)),
            Lock::Unrecoverable => Ok(None),
            Lock::TimedOut => Err(HandoffError::Locked { segment: self.name.clone(), holder: self.holder() }),
        }
    }

    fn holder(&self) -> String {
        match self.mutex().holder() {
            None => "a process whose number does not stand in it; end or continue those that use it".to_owned(),
            Some(thread) => match process::program(thread) {
                Some(program) => format!("{program} (pid {thread}); end or continue that process"),
                None => format!(
                    "pid {thread}, which is gone, or in another PID namespace; a writer that starts anew makes a new mutex, and \
                     all peers have to be in one namespace"
                ),
            },
        }
    }

    pub(super) fn corrupt(&self, reason: String) -> HandoffError {
        HandoffError::Corrupt { channel: self.name.clone(), reason }
    }

    /// Copies the message out, as far as the file is long enough. The caller holds the mutex.
    pub(super) fn copy_out(&self, into: &mut Vec<u8>) -> Result<()> {
        let (size, len) = (self.header().data_size.load(Ordering::Relaxed), self.len()?);
        let most = len.saturating_sub(DATA);
        if size > most {
            return Err(self.corrupt(format!("data_size is {size}, but a file of {len} bytes holds at most {most}")));
        }
        into.clear();
        into.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
        let read = self.file.read_exact_at(into, DATA);
        Ok(read.map_err(|e| SystemError::new(format!("read {size} bytes from {}", self.name), e))?)
    }

    /// Copies a part of a message in, from byte `at` of the message on. The file is long enough. The caller holds the mutex, so
    /// the last reader does not copy at the same time: see `is_read` in the writer.
    pub(super) fn copy_in(&self, at: u64, part: &[u8]) -> Result<(), SystemError> {
        let len = part.len();
        self.file
            .write_all_at(part, DATA + at)
            .map_err(|e| SystemError::new(format!("write {len} bytes to {}", self.name), e))
    }

    /// Whether the name still leads to this segment.
    pub(super) fn is_current(&self) -> bool {
        FileId::at(path(&self.name)).is_ok_and(|there| there == self.id)
    }
}

impl Objects {
    /// Opens the objects of a writer. `None` while they are not complete.
    ///
    /// # Errors
    /// For anything but a missing object, for example a missing permission.
    pub(super) fn open(names: &Names) -> Result<Option<Self>, SystemError> {
        let opened = (|| {
            let file = shm::open(&names.segment, true)?;
            if reserve::length(file.as_fd())? < PAGE {
                return Ok(None);
            }
            let segment = Segment::map(&names.segment, file)?;
            // A writer stores the capacity after the mutex is ready.
            if segment.header().capacity.load(Ordering::Acquire) < HEADER_SIZE {
                return Ok(None);
            }
            let avail = NamedSemaphore::open(&names.avail)?;
            let done = Arc::new(NamedSemaphore::open(&names.done)?);
            Ok(Some(Self { names: names.clone(), segment, avail, done }))
        })();
        match opened {
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(shut_out(names)),
            opened => opened,
        }
    }

    /// Whether all names still lead to these objects.
    pub(super) fn are_current(&self) -> bool {
        self.segment.is_current() && self.avail.is_current(&self.names.avail) && self.done.is_current(&self.names.done)
    }

    /// Whether there is something under each of these names.
    pub(super) fn exist(names: &Names) -> bool {
        let paths = [path(&names.segment), named_sem::path(&names.avail), named_sem::path(&names.done)];
        paths.iter().all(|path| FileId::at(path).is_ok())
    }

    /// Whether at least one name is missing.
    pub(super) fn is_one_missing(&self) -> bool {
        !Self::exist(&self.names)
    }

    /// Removes the names that still lead to these objects.
    pub(super) fn unlink(&self) -> Result<(), SystemError> {
        let mut result = Ok(());
        if self.segment.is_current() {
            result = result.and(shm::unlink(&self.names.segment));
        }
        for (semaphore, name) in [(&self.avail, &self.names.avail), (&*self.done, &self.names.done)] {
            if semaphore.is_current(name) {
                result = result.and(named_sem::unlink(name));
            }
        }
        result
    }
}
