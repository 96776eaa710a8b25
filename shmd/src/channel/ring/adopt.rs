//! Continuing in a segment that a dead daemon has left: whether the segment can be trusted, and what is then known
//! about it.
//!
//! Everything is read with `pread`, and nothing is believed without a check, because a program that was lent the writer
//! role may have written anything. A segment that fails a check is replaced by an empty one, and the log says why.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shm_proto::internal::os::file_lock::{self, Role};
use shm_proto::internal::os::reserve;
use shm_proto::internal::ring::layout::{DATA_OFFSET, LAYOUT_VERSION, LEFT};
use shm_proto::internal::ring::{
    NotedReaders, Owner, SizeNote, Snapshot, Walk, WalkFrom, Walked, misplaced, noted_readers, noted_size,
    noted_unnamed, own_segment,
};
use shm_proto::{Bytes, Geometry, SystemError};

use super::name::Left;
use super::segment::{Segment, geometry};
use crate::config::{ChannelConfig, MOST_READERS};
use crate::handover;
use crate::notify;
use crate::operation_log::{LogEvent, operation};

/// Bytes of a file to check at a time.
const PART: u64 = 64 << 20;

/// What is known about a segment that was adopted.
#[derive(Clone, Debug)]
pub(in crate::channel) struct Adopted {
    pub(super) shot: Snapshot,
    /// The readers of the dead daemon.
    pub(super) readers: NotedReaders,
    /// The change of size that was in progress.
    pub(super) size: SizeNote,
    /// A program that was lent the writer role is alive, and may still write.
    pub(super) is_written: bool,
}

impl Left<'_> {
    /// Makes it the segment of a channel with this configuration.
    ///
    /// # Errors
    /// In the inner result: why it cannot be that segment, in words. In the outer result: what the kernel refused.
    pub(super) fn adopt(
        self,
        config: &ChannelConfig,
        owner: Owner,
    ) -> Result<Result<(Segment, Geometry, Adopted), String>, SystemError> {
        let Left { name, file, read_only, mut found } = self;
        if !found.is_segment {
            return Ok(Err(format!(
                "it has layout {}, and this daemon understands layout {LAYOUT_VERSION}",
                found.version
            )));
        }
        if found.owner.boot_id != owner.boot_id {
            return Ok(Err("it is of another boot".to_owned()));
        }
        if found.owner.home != owner.home {
            return Ok(Err("the daemon had another runtime directory".to_owned()));
        }
        let mut geometry = geometry(config);
        (geometry.instance, geometry.lineage) = (found.instance, found.lineage);
        let length = reserve::length(file.as_fd())?.saturating_sub(DATA_OFFSET);
        if let Some(fault) = found.fault(&geometry, length) {
            return Ok(Err(format!("it does not fit the configuration, or was written over: {fault}")));
        }
        if noted_unnamed(file.as_fd())? == LEFT {
            // Only a segment that has lost its name to the next one is marked like this.
            return Ok(Err(
                "it is marked as one that the channel has left, although it has the channel's name".to_owned()
            ));
        }
        // Also more than `max_readers`, which may be lower now: all of them read.
        found.readers = found.readers.min(u64::from(MOST_READERS));
        if found.capacity < config.min.min(DATA_OFFSET) {
            return Ok(Err(format!("its capacity is {}", Bytes(found.capacity))));
        }
        let is_written = file_lock::is_locked(&file, Role::Writer)?;
        let whole =
            if is_written { flows(file.as_fd(), &geometry)? } else { rests(file.as_fd(), &geometry, found.capacity)? };
        if let Err(reason) = whole {
            return Ok(Err(format!("its records are broken: {reason}")));
        }
        let (readers, size) = (noted_readers(file.as_fd())?, noted_size(file.as_fd())?);
        own_segment(file.as_fd(), owner)?;
        // Without the lock, the channel moves to a segment with the lock before the role is lent again.
        let next_lock = file_lock::take_over(&file)?;
        if !is_written && length > found.capacity {
            // This memory is from a growth in progress, or from a shrink whose readers had not left yet. Those readers
            // see that they were overtaken.
            reserve::punch(file.as_fd(), DATA_OFFSET + found.capacity, DATA_OFFSET + length)?;
        }
        let segment = Segment::adopted(name.to_owned(), file, read_only, length, next_lock, owner);
        let gid = config.group.as_ref().map(|(_, gid)| *gid);
        segment.set_access(config.mode, gid)?;
        let adopted = operation(LogEvent::Adopt)
            .on(&config.name)
            .text("segment", name)
            .number("capacity", found.capacity)
            .number("messages", found.tail.seq)
            .number("readers", found.readers)
            .text("writer", if is_written { "alive" } else { "none" });
        match handover::before().filter(|_| found.owner.pid == owner.pid) {
            Some(_) => adopted.reason("the daemon has executed its file anew").info(),
            None => adopted.reason(format_args!("its daemon, pid {}, is no more", found.owner.pid)).warn(),
        }
        Ok(Ok((segment, geometry, Adopted { shot: found, readers, size, is_written })))
    }
}

/// Checks the records while a writer works, perhaps faster than they can be checked.
///
/// # Errors
/// If the file cannot be read. The inner result says what is wrong with the records.
fn flows(segment: BorrowedFd<'_>, geometry: &Geometry) -> Result<Result<(), String>, SystemError> {
    match walk_through(segment, geometry, WalkFrom::Floor) {
        Ok(Walked::Tail(_) | Walked::Overtaken) => Ok(Ok(())),
        Ok(Walked::Broken(reason)) => Ok(Err(reason)),
        Ok(Walked::More) => Ok(Err("they have no end".to_owned())),
        Err(e) if e.kind() == ErrorKind::ResourceBusy => Ok(Ok(())),
        Err(e) => Err(e),
    }
}

/// Checks the records while nobody writes: wherever a reader begins, it must come to the same end, and that end must be
/// below the capacity, because the memory above is given back.
///
/// # Errors
/// If the file cannot be read. The inner result says what is wrong with the records.
fn rests(segment: BorrowedFd<'_>, geometry: &Geometry, capacity: u64) -> Result<Result<(), String>, SystemError> {
    let mut below = geometry.clone();
    below.max_capacity = capacity;
    if let Some(reason) = misplaced(segment, &below)? {
        return Ok(Err(reason));
    }
    let mut ends = Vec::new();
    for from in [WalkFrom::Floor, WalkFrom::NextFloor, WalkFrom::Mark] {
        match walk_through(segment, &below, from)? {
            Walked::Tail(end) => ends.push((end.pos, end.off, end.seq)),
            Walked::Broken(reason) => return Ok(Err(reason)),
            other => return Ok(Err(format!("they have no end: {other:?}"))),
        }
    }
    let differ = ends.iter().any(|end| *end != ends[0]);
    Ok(if differ {
        Err(format!("from floor, next floor and mark they end at different places: {ends:?}"))
    } else {
        Ok(())
    })
}

/// Walks from there to the end. In a large ring that takes longer than a service manager waits for a sign of life.
fn walk_through(segment: BorrowedFd<'_>, geometry: &Geometry, from: WalkFrom) -> Result<Walked, SystemError> {
    let mut walk = Walk::begin(segment, from)?;
    loop {
        notify::alive();
        match walk.go_on(segment, geometry, PART)? {
            Walked::More => {}
            end => return Ok(end),
        }
    }
}

/// [Adopts](Left::adopt) a file that has no name, for [fuzzing](crate::fuzzing). Returns the facts and the capacity of
/// the segment that would be adopted.
///
/// # Errors
/// As [`Left::adopt`].
pub(crate) fn adopt_nameless(
    (file, read_only): (OwnedFd, OwnedFd),
    config: &ChannelConfig,
    owner: Owner,
) -> Result<Result<(Geometry, u64), String>, SystemError> {
    let found = Snapshot::read(file.as_fd())?;
    let left = Left { name: "", file, read_only, found };
    Ok(left.adopt(config, owner)?.map(|(_, geometry, adopted)| (geometry, adopted.shot.capacity)))
}
