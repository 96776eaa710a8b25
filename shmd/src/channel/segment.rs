//! A channel's shared memory object: made, cut and unlinked here, and nowhere else.
//!
//! The daemon never maps an object that a program was lent: whoever can write it can cut it short, and touching mapped
//! memory past a file's end kills. It is looked at by `pread` and changed by its descriptor only.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, fchown, getegid};
use shm_proto::control::Geometry;
use shm_proto::os::{barrier, file_lock, process, random, reserve, shm};
use shm_proto::ring::layout::DATA_OFFSET;
use shm_proto::ring::{Owner, Snapshot, create_segment};
use shm_proto::{Bytes, Error, Prefix, Result};

use crate::config::ChannelConfig;
use crate::journal::operation;

/// How long a killed daemon's lock is waited for.
const RELEASE: Duration = Duration::from_secs(1);

/// The daemon's own process, as a segment's header names it.
///
/// # Errors
/// When `/proc` does not tell.
pub(crate) fn this_process() -> Result<Owner> {
    let pid = std::process::id();
    let start = process::start_ticks(pid).ok_or_else(|| {
        let missing = std::io::Error::from(ErrorKind::NotFound);
        Error::system(format!("read this process's start from /proc/{pid}/stat"), missing)
    })?;
    Ok(Owner { pid, start, boot_id: process::boot_id()? })
}

/// The object of one channel; unlinked when dropped.
#[derive(Debug)]
pub(crate) struct Segment {
    name: String,
    file: OwnedFd,
    /// Opened for reading only: what readers get.
    read_only: OwnedFd,
    /// Bytes of the data area that the file has.
    length: u64,
    /// Memory above the capacity was given back, but the file keeps its length until no reader stands before this
    /// position any more.
    standing: Option<u64>,
}

impl Segment {
    /// Makes the object of a channel. What a daemon that is no more has left under its name is replaced.
    ///
    /// # Errors
    /// When the name belongs to a living daemon or to somebody else, and when there is no memory.
    pub(crate) fn create(prefix: &Prefix, config: &ChannelConfig, owner: Owner) -> Result<(Self, Geometry)> {
        let name = config.object(prefix);
        let gid = config.group.as_ref().map(|(_, gid)| *gid);
        // Before memory is reserved: a dead daemon's object may hold what is needed.
        make_way(&name)?;
        let object = shm::Unnamed::create(&name, config.mode, gid)?;
        let geometry = geometry(config);
        create_segment(object.file(), &geometry, config.capacity, owner).map_err(|e| no_room(config, e))?;
        let read_only = object.read_only()?;
        publish(&object, &name)?;
        let segment = Self { name, file: object.into_file(), read_only, length: config.capacity, standing: None };
        operation("create")
            .on(&config.name)
            .text("segment", &segment.name)
            .number("capacity", config.capacity)
            .number("min", config.min)
            .number("max", config.max)
            .text("mode", format_args!("{:04o}", config.mode))
            .info();
        Ok((segment, geometry))
    }

    /// The name for `shm_open`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor to change it by.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What the header says now.
    ///
    /// # Errors
    /// When the file was cut short by a program that was lent the writer role.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::read(self.read_only.as_fd())
    }

    /// A descriptor for a reader.
    ///
    /// # Errors
    /// When the descriptors have run out.
    pub(crate) fn for_reader(&self) -> Result<OwnedFd> {
        self.read_only.try_clone().map_err(|e| Error::system("duplicate a segment's descriptor", e))
    }

    /// A descriptor for a writer, with an open file of its own.
    ///
    /// # Errors
    /// When the descriptors have run out.
    pub(crate) fn for_writer(&self) -> Result<OwnedFd> {
        shm::open(&self.name, true)
    }

    /// Memory behind it now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        fstat(self.file()).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }

    /// Changes its mode and its group, which without one is the daemon's own.
    ///
    /// # Errors
    /// When the daemon is not in that group.
    pub(crate) fn set_access(&self, mode: u32, gid: Option<u32>) -> Result<()> {
        let failed = |e| Error::system(format!("change mode and group of shared memory {}", self.name), e);
        let gid = gid.map_or_else(getegid, Gid::from_raw);
        fchown(self.file(), None, Some(gid)).map_err(failed)?;
        fchmod(self.file(), Mode::from_bits_truncate(mode)).map_err(failed)
    }

    /// Bytes that there are to be had for growing.
    pub(crate) fn free(&self) -> u64 {
        reserve::free(self.file()).unwrap_or(u64::MAX)
    }

    /// The file's data area has grown to so many bytes.
    pub(crate) fn grown(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Gives back the memory above `to`. While some reader may stand there, which `is_clear` denies for a position, the
    /// memory goes but the file keeps its length.
    pub(crate) fn cut(&mut self, to: u64, after: Option<u64>, is_clear: impl Fn(u64) -> bool) {
        self.standing = self.standing.max(after);
        // The file may be longer than was heard of: a reservation that failed or was ended leaves a part.
        self.length = reserve::length(self.file()).map_or(self.length, |len| len.saturating_sub(DATA_OFFSET));
        if self.length <= to {
            self.standing = None;
        } else if self.standing.is_none_or(is_clear) {
            self.truncate(to);
        } else if let Err(e) = reserve::punch(self.file(), DATA_OFFSET + to, DATA_OFFSET + self.length) {
            let part = operation("punch-failed").text("segment", &self.name).number("from", to);
            part.number("to", self.length).reason(e).warn();
        }
    }

    /// Cuts what an earlier [`cut`](Self::cut) had to leave, if the readers have gone on.
    pub(crate) fn settle(&mut self, capacity: u64, is_clear: impl Fn(u64) -> bool) {
        if self.standing.is_some_and(is_clear) {
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
            Err(e) => operation("truncate-failed").text("segment", &self.name).number("to", to).reason(e).warn(),
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Under the name there may be another object by now; that one is not ours to remove.
        if !is_at(&self.name, &self.read_only) {
            let reason = "the name is gone or another object's";
            operation("unlink").text("segment", &self.name).reason(reason).warn();
            return;
        }
        match shm::unlink(&self.name) {
            Ok(()) => operation("unlink").text("segment", &self.name).info(),
            Err(e) => operation("unlink-failed").text("segment", &self.name).reason(e).warn(),
        }
    }
}

pub(super) fn geometry(config: &ChannelConfig) -> Geometry {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    Geometry {
        channel: config.name.clone(),
        instance: random::u64(),
        max_capacity: config.max,
        max_message: config.max_message,
        align: config.align,
        on_full: config.on_full,
        ack: config.ack,
        ack_timeout_ms: millis(config.ack_timeout),
        evict_after_ms: config.evict_after.map_or(0, millis),
        wait_readers: config.wait_readers,
        max_readers: config.max_readers,
        asymmetric: barrier::available(),
        prefault: config.prefault,
    }
}

fn no_room(config: &ChannelConfig, error: Error) -> Error {
    match error {
        Error::System { action, source } => {
            let name = &config.name;
            Error::System { action: format!("channel {name}: {action} (capacity {})", Bytes(config.capacity)), source }
        }
        other => other,
    }
}

/// Whether the name leads to this very object. Looked at by its path, because that takes no descriptor, and there may be none.
fn is_at(name: &str, object: &OwnedFd) -> bool {
    match (fs::symlink_metadata(shm::path(name)), fstat(object)) {
        (Ok(there), Ok(object)) => (there.dev(), there.ino()) == (object.st_dev, object.st_ino),
        _ => false,
    }
}

/// Gives the object its name.
fn publish(object: &shm::Unnamed, name: &str) -> Result<()> {
    // The lock is on the new file, which nobody else has yet. It is there before the name is.
    file_lock::try_lock(object.file(), file_lock::Role::Owner)?;
    loop {
        match object.publish() {
            // Somebody was faster. Only what a dead daemon left makes way.
            Err(Error::System { source, .. }) if source.kind() == ErrorKind::AlreadyExists => make_way(name)?,
            published => return published,
        }
    }
}

/// Removes what lies under the name if a daemon that is no more has left it there.
///
/// Daemons that start at the same time with one prefix may all find it. Its owner's lock goes to one of them; the others find
/// it locked, or that the name leads elsewhere by now, and look again.
fn make_way(name: &str) -> Result<()> {
    let refuse = |reason: String| {
        let taken = std::io::Error::new(ErrorKind::AlreadyExists, reason);
        Err(Error::system(format!("create shared memory {name}"), taken))
    };
    loop {
        let there = match shm::open(name, false) {
            Ok(there) => there,
            Err(Error::System { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return refuse(format!("somebody else's object has this name ({e}); choose another --prefix")),
        };
        let stat = fstat(&there).map_err(|e| Error::system(format!("look at shared memory {name}"), e))?;
        let own = nix::unistd::geteuid().as_raw();
        if stat.st_uid != own {
            let user = process::user_name(stat.st_uid);
            return refuse(format!("user {user}'s object has this name; choose another --prefix"));
        }
        let found = match Snapshot::read(there.as_fd()) {
            Ok(found) if found.is_segment => found,
            _ => {
                return refuse(
                    "an object that is not shmd's has this name; remove it, or choose another --prefix".into(),
                );
            }
        };
        let Owner { pid, start, boot_id } = found.owner;
        let in_use = || refuse(format!("the shmd with pid {pid} uses it; stop that one, or choose another --prefix"));
        if process::boot_id()? == boot_id && process::is_alive(pid, start) {
            return in_use();
        }
        let claimed = match shm::open(name, true) {
            Ok(claimed) => claimed,
            Err(Error::System { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let same = |file: &OwnedFd| fstat(file).is_ok_and(|it| (it.st_dev, it.st_ino) == (stat.st_dev, stat.st_ino));
        if !claim(&claimed)? {
            // Its daemon lives in another PID namespace, or another daemon is replacing it at this moment.
            return in_use();
        }
        if !same(&claimed) || !is_at(name, &claimed) {
            continue;
        }
        shm::unlink(name)?;
        let reason = format!("its daemon, pid {pid}, is no more");
        operation("replace").text("segment", name).reason(reason).number("messages", found.tail.seq).warn();
        return Ok(());
    }
}

/// Takes the owner's lock. A daemon that was just killed has it until the last of its threads and children is gone.
fn claim(object: &OwnedFd) -> Result<bool> {
    let until = Instant::now() + RELEASE;
    loop {
        if file_lock::try_lock(object, file_lock::Role::Owner)? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
