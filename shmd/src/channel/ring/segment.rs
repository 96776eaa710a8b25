//! A channel's shared memory object: replaced, truncated and unlinked here, and nowhere else.
//!
//! The daemon never maps an object that a program was lent: a process that can write to the object can truncate it, and
//! access to mapped memory behind a file's end kills. The daemon reads the object only with `pread`, and changes it
//! only through its descriptor.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, fchown, getegid};
use shm_proto::Geometry;
use shm_proto::internal::os::file_id::FileId;
use shm_proto::internal::os::memory;
use shm_proto::internal::os::memory::Free;
use shm_proto::internal::os::{barrier, file_lock, process, random, reserve, shm};
use shm_proto::internal::ring::layout::DATA_OFFSET;
use shm_proto::internal::ring::record::features;
use shm_proto::internal::ring::{Owner, Snapshot};
use shm_proto::{Bytes, SystemError};

use crate::cleanup;
use crate::config::ChannelConfig;
use crate::hash::fnv;
use crate::operation_log::{LogEvent, operation};

/// The daemon's process for a segment's header. A daemon with the same runtime directory may continue in its segments.
///
/// # Errors
/// If `/proc` does not tell.
pub(crate) fn this_process(runtime_dir: &Path) -> Result<Owner, SystemError> {
    let pid = std::process::id();
    let start = process::start_ticks(pid).ok_or_else(|| {
        let missing = std::io::Error::from(ErrorKind::NotFound);
        SystemError::new(format!("read this process's start from /proc/{pid}/stat"), missing)
    })?;
    Ok(Owner { pid, start, boot_id: process::boot_id()?, home: home(runtime_dir) })
}

/// A number derived from a runtime directory.
fn home(runtime_dir: &Path) -> u64 {
    let path = runtime_dir.canonicalize().unwrap_or_else(|_| runtime_dir.to_owned());
    fnv(path.as_os_str().as_bytes())
}

/// The object of one channel; unlinked when this is dropped, unless a start fails that has adopted it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) name: String,
    file: OwnedFd,
    /// Opened for reading only: the descriptor for readers.
    read_only: OwnedFd,
    /// Bytes of the data area in the file.
    length: u64,
    /// Memory above the capacity was given back, but the file keeps its length until no reader stands before this
    /// position any more.
    standing: Option<u64>,
    /// The byte whose lock the next writer gets. None if another process was in the way of these locks.
    next_lock: Option<u64>,
    pub(super) owner: Owner,
    /// A dead daemon has left the segment. Its readers may stand anywhere in the file, which is never truncated.
    is_adopted: bool,
    /// The daemon that has adopted it is not ready yet. If its start fails, the segment stays for the next daemon.
    is_left: bool,
    /// The channel's present segment, for the notes of another thread.
    pub(super) note_file: Option<NoteFile>,
}

/// The file of a channel's present segment, for a thread that notes something there. A move waits for a note.
pub(in crate::channel) type NoteFile = Arc<Mutex<OwnedFd>>;

impl Segment {
    /// The object that has this name now.
    pub(super) fn new(name: String, file: OwnedFd, read_only: OwnedFd, length: u64, owner: Owner) -> Self {
        let read_only = shm::by_name(&name, read_only);
        let (next_lock, is_adopted) = (Some(file_lock::FIRST_WRITER), false);
        Self {
            name,
            file,
            read_only,
            length,
            standing: None,
            next_lock,
            owner,
            is_adopted,
            is_left: false,
            note_file: None,
        }
    }

    /// The object that another daemon has left under this name.
    pub(super) fn adopted(
        name: String,
        file: OwnedFd,
        read_only: OwnedFd,
        length: u64,
        next_lock: Option<u64>,
        owner: Owner,
    ) -> Self {
        let mut segment = Self::new(name, file, read_only, length, owner);
        (segment.next_lock, segment.is_adopted, segment.is_left) = (next_lock, true, true);
        segment
    }

    /// A successor has taken the name. Readers that are still in this segment continue.
    pub(super) fn retire(&mut self) {
        self.name.clear();
    }

    /// Gives the memory back when no reader needs it any more. A program that still writes allocates new memory, and
    /// harms nobody.
    pub(super) fn release(self) {
        if self.is_adopted {
            // Readers that have not come back may still read the segment. When the last one leaves, the memory is
            // freed.
            return;
        }
        let end = reserve::length(self.file()).unwrap_or(DATA_OFFSET);
        if let Err(e) = reserve::punch(self.file(), DATA_OFFSET, end) {
            operation(LogEvent::PunchFailed).number("from", 0).number("to", end).reason(e).warn();
        }
    }

    /// From now on the segment is removed with its channel.
    pub(super) fn keep(&mut self) {
        self.is_left = false;
    }

    /// Whether a program that was lent the role can still write to the segment, or whether that is unknowable.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(super) fn is_held(&self) -> Result<bool, SystemError> {
        Ok(self.next_lock.is_none() || self.is_locked()?)
    }

    /// Whether `file` is the segment's file, and belongs to the only program that may still write to the segment.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(super) fn is_lent_as(&self, file: BorrowedFd<'_>) -> Result<bool, SystemError> {
        let looked = |e| SystemError::new(format!("look at shared memory {}", self.name), e);
        let is_same = FileId::of(&self.file).map_err(looked)? == FileId::of(file).map_err(looked)?;
        Ok(is_same && file_lock::is_only_writer(&self.file, file)?)
    }

    /// Whether a program that was lent the writer role can still write to the segment.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(super) fn is_locked(&self) -> Result<bool, SystemError> {
        file_lock::is_locked(&self.file, file_lock::Role::Writer)
    }

    /// The file for the notes of another thread; of the segments after this one, too.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub(super) fn note_file(&mut self) -> Result<NoteFile, SystemError> {
        let file = self.file.try_clone().map_err(|e| SystemError::new("duplicate a segment's descriptor", e))?;
        Ok(Arc::clone(self.note_file.get_or_insert_with(|| Arc::new(Mutex::new(file)))))
    }

    /// The name for `shm_open`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor to change the object with.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What the header says now.
    ///
    /// # Errors
    /// If a program that was lent the writer role has truncated the file.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, SystemError> {
        Snapshot::read(self.read_only.as_fd())
    }

    /// The same without the places.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub(super) fn snapshot_without_places(&self) -> Result<Snapshot, SystemError> {
        Snapshot::without_places(self.read_only.as_fd())
    }

    /// Bytes of data in the file, whatever was reserved.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub(super) fn data_length(&self) -> Result<u64, SystemError> {
        Ok(reserve::length(self.file())?.saturating_sub(DATA_OFFSET))
    }

    /// A descriptor for a reader.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub(crate) fn for_reader(&self) -> Result<OwnedFd, SystemError> {
        self.read_only.try_clone().map_err(|e| SystemError::new("duplicate a segment's descriptor", e))
    }

    /// A descriptor for a writer, with its own open file description, and a lock that lasts as long as any process has
    /// that open or mapped.
    ///
    /// # Errors
    /// If no descriptors are left, or if the name leads to another object.
    pub(crate) fn for_writer(&mut self) -> Result<OwnedFd, SystemError> {
        let writer = shm::open(&self.name, true)?;
        let looked = |e| SystemError::new(format!("look at shared memory {}", self.name), e);
        if FileId::of(&self.file).map_err(looked)? != FileId::of(&writer).map_err(looked)? {
            let other = std::io::Error::other("the name leads to another object");
            return Err(SystemError::new(format!("open shared memory {} for a writer", self.name), other));
        }
        let Some(next) = self.next_lock else {
            let reason = std::io::Error::other("a reader has locked it");
            return Err(SystemError::new(format!("lock shared memory {} for a writer", self.name), reason));
        };
        self.next_lock = Some(file_lock::hand_over(&self.file, &writer, next)?);
        Ok(writer)
    }

    /// The memory that the segment uses now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        fstat(self.file()).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }

    /// Changes the object's mode and its group. Without a group, the group is the daemon's own.
    ///
    /// # Errors
    /// If the daemon is not a member of that group.
    pub(crate) fn set_access(&self, mode: u32, gid: Option<u32>) -> Result<(), SystemError> {
        let failed = |e| SystemError::new(format!("change mode and group of shared memory {}", self.name), e);
        let gid = gid.map_or_else(getegid, Gid::from_raw);
        let present = fstat(self.file()).map_err(failed)?;
        if present.st_gid != gid.as_raw() {
            // The new group must not get what the old one may, not for a moment.
            fchmod(self.file(), Mode::from_bits_truncate(present.st_mode & mode & 0o700)).map_err(failed)?;
            fchown(self.file(), None, Some(gid)).map_err(failed)?;
        }
        fchmod(self.file(), Mode::from_bits_truncate(mode)).map_err(failed)
    }

    /// The memory that is available for growing.
    pub(crate) fn free(&self) -> Free {
        memory::shared(self.file())
    }

    /// Notes that the file's data area has grown to this many bytes.
    pub(crate) fn grown(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Gives back the memory above `to`. While a reader may stand there, which `is_clear` denies for a position, the
    /// memory goes but the file keeps its length.
    pub(crate) fn cut(&mut self, to: u64, after: Option<u64>, is_clear: impl Fn(u64) -> bool) {
        self.standing = self.standing.max(after);
        // The file may be longer than reported: a reservation that failed or was cancelled leaves a part.
        self.length = reserve::length(self.file()).map_or(self.length, |len| len.saturating_sub(DATA_OFFSET));
        if self.length <= to {
            self.standing = None;
        } else if !self.is_adopted && self.standing.is_none_or(is_clear) {
            self.truncate(to);
        } else if let Err(e) = reserve::punch(self.file(), DATA_OFFSET + to, DATA_OFFSET + self.length) {
            let part = operation(LogEvent::PunchFailed).text("segment", &self.name).number("from", to);
            part.number("to", self.length).reason(e).warn();
        }
    }

    /// Truncates what an earlier [`cut`](Self::cut) had to leave, if the readers have moved on.
    pub(crate) fn settle(&mut self, capacity: u64, is_clear: impl Fn(u64) -> bool) {
        if !self.is_adopted && self.standing.is_some_and(is_clear) {
            self.truncate(capacity);
        }
    }

    /// Whether [`settle`](Self::settle) has something to wait for.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.standing.is_some()
    }

    fn truncate(&mut self, to: u64) {
        match reserve::truncate(self.file(), DATA_OFFSET + to) {
            Ok(()) => {
                self.length = to;
                self.standing = None;
            }
            Err(e) => operation(LogEvent::TruncateFailed).text("segment", &self.name).number("to", to).reason(e).warn(),
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.name.is_empty() || self.is_left {
            return;
        }
        // The name may lead to another object by now, which must not be removed here.
        if !shm::leads_to(&self.name, &self.read_only) {
            let reason = "the name is gone or another object's";
            operation(LogEvent::Unlink).text("segment", &self.name).reason(reason).warn();
            return;
        }
        match shm::unlink(&self.name) {
            Ok(()) => operation(LogEvent::Unlink).text("segment", &self.name).info(),
            Err(e) => cleanup::failed(None, shm::path(&self.name), e),
        }
    }
}

/// The facts of a new segment of a channel with this configuration.
pub(crate) fn geometry(config: &ChannelConfig) -> Geometry {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut geometry = Geometry::new(config.name.clone(), random::u64(), config.max, config.max_message);
    geometry.align = config.align;
    geometry.features = features(config.timestamps);
    geometry.on_full = config.on_full;
    geometry.ack = config.ack;
    geometry.ack_timeout_ms = millis(config.ack_timeout);
    geometry.evict_after_ms = config.evict_after.map_or(0, millis);
    geometry.wait_readers = config.wait_readers;
    geometry.max_readers = config.max_readers;
    geometry.asymmetric = barrier::available();
    geometry.prefault = config.prefault;
    // Of a handoff channel, only the feed is a ring.
    geometry.relayed = config.handoff.is_some();
    geometry
}

pub(super) fn no_room(config: &ChannelConfig, error: SystemError) -> SystemError {
    let SystemError { action, source, .. } = error;
    let capacity = Bytes(config.capacity);
    let way = "lower the channel's capacity, or raise that limit";
    let source = std::io::Error::new(source.kind(), format!("{source}; {way}"));
    SystemError::new(format!("no memory for its capacity of {capacity}: {action}"), source)
}
