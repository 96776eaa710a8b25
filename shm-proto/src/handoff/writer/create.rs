//! Making the objects, and taking over or replacing those that exist already.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::fstat;
use nix::unistd::geteuid;

use super::{Origin, Settings};
use crate::error::SystemError;
use crate::handoff::error::{HandoffError, Result};
use crate::handoff::layout::{HEADER_SIZE, PAGE};
use crate::handoff::objects::{Objects, Segment, is_missing};
use crate::os::clock;
use crate::os::file_id::FileId;
use crate::os::named_sem::{self, NamedSemaphore};
use crate::os::shm::Leftover;
use crate::os::{process, reserve, shm};

/// The time between two attempts to take a lock that another process holds.
const LOOK: Duration = Duration::from_millis(5);

/// The objects with the lock that marks their writer.
pub(super) struct Made {
    pub(super) objects: Objects,
    pub(super) origin: Origin,
    /// Held while the writer lives, so that the next one can tell a stale segment from one in use.
    pub(super) owner: Flock<OwnedFd>,
}

/// Makes the three objects, or takes over those that a writer of this kind has left.
///
/// The segment comes first, locked and complete except for its capacity: of several writers that start at the same time, one
/// gives its segment the name, and that writer makes everything else. The capacity is stored last, so that readers find all
/// three objects or nothing.
///
/// Waits for the lock and the mutex of a segment that was left for up to `patience` each.
pub(super) fn make(settings: &Settings, patience: Duration, ending: &AtomicBool) -> Result<Made> {
    match shm::sweep() {
        Ok(removed) => removed.iter().for_each(|name| log::warn!("event=sweep object={name}")),
        Err(error) => log::warn!("event=sweep-failed reason={:?}", error.to_string()),
    }
    let until = clock::after(patience);
    loop {
        if let Some(made) = take_over(settings, patience, until, ending)? {
            return Ok(made);
        }
    }
}

/// `None` if the objects have changed hands meanwhile, or if another process is just looking at the segment and `until_ns` has not
/// come.
fn take_over(settings: &Settings, patience: Duration, until_ns: u64, ending: &AtomicBool) -> Result<Option<Made>> {
    let name = &settings.names.segment;
    refuse_strangers(name)?;
    let left = shm::remove_blank(name)?;
    let there = match shm::open(name, true) {
        Ok(there) => there,
        Err(error) if is_missing(&error) => {
            let origin = if left == Leftover::Removed { Origin::Replaced } else { Origin::Created };
            return fresh(settings, origin, ending);
        }
        // Another writer is checking whether a process uses the segment, which takes a moment.
        Err(error) if error.kind() == ErrorKind::WouldBlock && clock::monotonic_ns() < until_ns => {
            std::thread::sleep(LOOK);
            return Ok(None);
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(refuse(name, "a process has a lease on it (F_SETLEASE); end that one, or choose another name"));
        }
        Err(error) => {
            return Err(refuse(
                name,
                &format!("somebody else's object has this name ({error}); choose another, or have it removed"),
            ));
        }
    };
    let stat = fstat(&there).map_err(|e| SystemError::new(format!("look at shared memory {name}"), e))?;
    refuse_stranger(name, stat.st_uid)?;
    let users = || users(process::mapped_by(FileId::from(&stat)));
    let Some(owner) = own_within(name, there.as_fd(), patience)? else {
        let way = "end that one, or choose another name";
        return Err(refuse(
            name,
            &format!("another writer holds its lock, and who has it mapped is {}; {way}", users()),
        ));
    };
    if !shm::leads_to(name, &there) {
        return Ok(None);
    }
    let usual = (stat.st_mode & 0o7777, stat.st_gid) == (settings.mode, settings.gid.unwrap_or(stat.st_gid));
    match adopt(settings, there, patience)? {
        Adoption::Adopted(objects, pending) if usual => {
            return Ok(Some(Made { objects, origin: Origin::Adopted { pending }, owner }));
        }
        Adoption::Foreign if !process::mapped_by(FileId::from(&stat)).is_empty() => {
            let reason = format!(
                "it was made by a program that is not shmd's and that still uses it: {}; end that one, or choose another name",
                users()
            );
            return Err(refuse(name, &reason));
        }
        _ => {}
    }
    shm::unlink(name)?;
    drop(owner);
    fresh(settings, Origin::Replaced, ending)
}

/// Another user's object may be one that cannot be opened, and is not worth a try.
fn refuse_strangers(name: &str) -> Result<()> {
    match std::fs::symlink_metadata(shm::path(name)) {
        Ok(found) => refuse_stranger(name, found.uid()),
        Err(_) => Ok(()),
    }
}

fn refuse_stranger(name: &str, owner: u32) -> Result<()> {
    if owner == geteuid().as_raw() {
        return Ok(());
    }
    let user = process::user_name(owner);
    Err(refuse(name, &format!("user {user}'s object has this name; choose another, or have it removed")))
}

enum Adoption {
    /// Taken over, with the length of a message that the last writer did not see acknowledged.
    Adopted(Objects, Option<u64>),
    /// A writer of this kind left it, but it cannot be used.
    Broken,
    /// Made by a program that does not use a robust mutex.
    Foreign,
}

fn adopt(settings: &Settings, file: OwnedFd, patience: Duration) -> Result<Adoption> {
    let len = reserve::length(file.as_fd())?;
    if len < PAGE {
        return Ok(Adoption::Foreign);
    }
    let segment = Segment::map(&settings.names.segment, file)?;
    if !segment.mutex().is_sane() || !segment.mutex().is_robust() {
        return Ok(Adoption::Foreign);
    }
    let header = segment.header();
    let told = header.capacity.load(Ordering::Relaxed);
    if !(HEADER_SIZE..=len).contains(&told) || len > settings.max_capacity || !len.is_multiple_of(PAGE) {
        return Ok(Adoption::Broken);
    }
    let opened = NamedSemaphore::open(&settings.names.avail).and_then(|avail| {
        let done = NamedSemaphore::open(&settings.names.done)?;
        Ok((avail, Arc::new(done)))
    });
    let Ok((avail, done)) = opened else { return Ok(Adoption::Broken) };
    let until = clock::after(patience);
    let pending = match segment.lock(until)? {
        None => return Ok(Adoption::Broken),
        Some(_guard) => {
            let pending = (header.ready_flag.load(Ordering::Relaxed) != 0)
                .then(|| header.data_size.load(Ordering::Relaxed).min(len));
            if !settings.keep_offer {
                header.ready_flag.store(0, Ordering::Relaxed);
                avail.take_all();
                done.take_all();
            }
            pending
        }
    };
    let names = settings.names.clone();
    Ok(Adoption::Adopted(Objects { names, segment, avail, done }, pending))
}

/// `None` if another writer was faster.
fn fresh(settings: &Settings, origin: Origin, ending: &AtomicBool) -> Result<Option<Made>> {
    let names = &settings.names;
    let object = shm::Unnamed::create(&names.segment, settings.mode, settings.gid)?;
    let owner = own(&names.segment, object.file())?;
    reserve::in_child(object.file(), 0, settings.capacity, ending)?;
    let file =
        object.file().try_clone_to_owned().map_err(|e| SystemError::new("duplicate a segment's descriptor", e))?;
    let segment = Segment::map(&names.segment, file)?;
    segment.mutex().init()?;
    match object.publish() {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        published => published?,
    }
    let mut made = Vec::new();
    let built = (|| {
        clear_semaphores(settings)?;
        let avail = NamedSemaphore::create(&names.avail, settings.mode, settings.gid)?;
        made.push(&names.avail);
        let done = Arc::new(NamedSemaphore::create(&names.done, settings.mode, settings.gid)?);
        made.push(&names.done);
        // Last, with Release: a reader that sees the capacity finds everything else.
        segment.header().capacity.store(settings.capacity, Ordering::Release);
        Ok(Some(Made { objects: Objects { names: names.clone(), segment, avail, done }, origin, owner }))
    })();
    if built.is_err() {
        // The caller needs the first error. Objects that cannot be removed now are recognised as stale later.
        for name in made {
            let _ = named_sem::unlink(name);
        }
        let _ = shm::unlink(&names.segment);
    }
    built
}

/// Takes the lock that marks the writer of a segment that exists already. `None` if another process keeps the lock. A writer
/// that was killed has the lock until the last of its threads and children has ended.
fn own_within(name: &str, file: BorrowedFd<'_>, patience: Duration) -> Result<Option<Flock<OwnedFd>>, SystemError> {
    let until = clock::after(patience);
    loop {
        match own(name, file) {
            Ok(owner) => return Ok(Some(owner)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if clock::monotonic_ns() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Takes the lock that marks the segment's writer.
fn own(name: &str, file: BorrowedFd<'_>) -> Result<Flock<OwnedFd>, SystemError> {
    let failed = |e: std::io::Error| SystemError::new(format!("lock shared memory {name}"), e);
    let file = file.try_clone_to_owned().map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno): (OwnedFd, Errno)| failed(errno.into()))
}

/// Removes semaphores without a segment, and those of a stale segment.
fn clear_semaphores(settings: &Settings) -> Result<()> {
    let own = geteuid().as_raw();
    for name in [&settings.names.avail, &settings.names.done] {
        let owner = std::fs::symlink_metadata(named_sem::path(name)).map(|found| found.uid());
        if let Some(user) = owner.ok().filter(|&uid| uid != own).map(process::user_name) {
            return Err(refuse(name, &format!("user {user}'s semaphore has this name; choose another")));
        }
        match named_sem::unlink(name) {
            Err(error) if !is_missing(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn users(pids: Vec<u32>) -> String {
    let name = |pid| format!("{} (pid {pid})", process::program(pid).unwrap_or_else(|| "?".to_owned()));
    match pids.as_slice() {
        [] => "no process that may be looked at".to_owned(),
        pids => pids.iter().map(|&pid| name(pid)).collect::<Vec<_>>().join(", "),
    }
}

fn refuse(name: &str, reason: &str) -> HandoffError {
    let taken = std::io::Error::new(ErrorKind::AlreadyExists, reason.to_owned());
    SystemError::new(format!("create handoff object {name}"), taken).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shm_test_support::{leased, unique};

    use super::*;
    use crate::handoff::{Names, Writer};

    #[test]
    fn a_segment_that_another_process_does_not_let_open_is_waited_for_only_so_long() {
        let [segment, avail, done] = ["leased", "leased-avail", "leased-done"].map(|name| format!("/{}", unique(name)));
        let settings = Settings::new(Names::new(&segment, &avail, &done).unwrap());
        drop(shm::create(&segment, 0o600, None).unwrap());
        let holder = leased(Path::new(&shm::path(&segment)));
        let made = Writer::create_within(settings.clone(), Duration::from_millis(20), &AtomicBool::new(false));
        let refused = made.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(&segment) && refused.contains("has a lease on it"), "{refused}");
        drop(holder);
        Writer::create(settings).unwrap();
    }
}
