//! A channel's name in `/dev/shm`: what a dead daemon has left under the name is adopted or removed; what belongs to
//! others stays.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;
use shm_proto::internal::os::file_lock;
use shm_proto::internal::os::file_lock::Role;
use shm_proto::internal::os::process;
use shm_proto::internal::os::remove::remove_this;
use shm_proto::internal::os::shm;
use shm_proto::internal::os::shm::Leftover;
use shm_proto::internal::ring::{Owner, Snapshot};
use shm_proto::{Prefix, SystemError};

use crate::handover;
use crate::operation_log::{LogEvent, operation};

/// How long to wait for a killed daemon's lock.
const RELEASE: Duration = Duration::from_secs(5);
/// The time between two looks during that wait.
const LOOK: Duration = Duration::from_millis(5);

/// A segment whose daemon no longer exists.
pub(super) struct Left<'a> {
    /// The segment's name for `shm_open`.
    pub(super) name: &'a str,
    /// Open for writing, with the owner's lock unless a reader is in the way of the lock.
    pub(super) file: OwnedFd,
    /// Open for reading only.
    pub(super) read_only: OwnedFd,
    /// What the segment's header says.
    pub(super) found: Snapshot,
}

/// Takes all locks of an object that no other process has yet: the owner's lock, and the locks to hand to writers. The
/// locks exist before the name does.
pub(super) fn lock(object: &shm::Unnamed) -> Result<(), SystemError> {
    for role in [Role::Owner, Role::Writer] {
        file_lock::try_lock(object.file(), role)?;
    }
    Ok(())
}

/// Gives the object its name.
pub(super) fn publish(object: &shm::Unnamed, name: &str) -> Result<(), SystemError> {
    lock(object)?;
    loop {
        match object.publish() {
            // Another process was faster. Only what a dead daemon left is removed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                make_way(name, |_| Ok(Err::<(), _>("another segment has been made meanwhile".to_owned())))?;
            }
            published => return published,
        }
    }
}

/// If a daemon that no longer exists has left an object under the name, passes it to `adopt`, which returns the result,
/// or why the object cannot be used; in that case, the object is removed. Returns `None` if the name is free.
///
/// Daemons that start at the same time with the same prefix may all find the object. One of them gets the owner's lock.
/// The others find the object locked, or find that the name leads elsewhere by now, and look again.
pub(super) fn make_way<T>(
    name: &str,
    mut adopt: impl FnMut(Left<'_>) -> Result<Result<T, String>, SystemError>,
) -> Result<Option<T>, SystemError> {
    let (until, own) = (Instant::now() + RELEASE, nix::unistd::geteuid().as_raw());
    let refuse = |reason: String| Err(taken(name, reason));
    loop {
        match shm::remove_blank(name)? {
            Leftover::Removed => {
                let reason = "it was empty: a start that was killed left it";
                operation(LogEvent::Replace).text("segment", name).reason(reason).warn();
                return Ok(None);
            }
            Leftover::InUse if Instant::now() < until => {
                std::thread::sleep(LOOK);
                continue;
            }
            Leftover::InUse => {
                let reason = "an empty object has this name, and a process has it open: a shmd that is just starting, perhaps; \
                              stop that one, or choose another --prefix";
                return refuse(reason.to_owned());
            }
            Leftover::None => {}
        }
        // Before it is opened, from which its user may keep others for a long time, with a lease.
        if let Ok(found) = fs::symlink_metadata(shm::path(name))
            && found.uid() != own
        {
            return refuse(of_user(found.uid()));
        }
        let there = match shm::open(name, false) {
            Ok(there) => there,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if is_passing(&error.source) => {
                wait_for_lease(name, until)?;
                continue;
            }
            Err(e) => return refuse(format!("somebody else's object has this name ({e}); choose another --prefix")),
        };
        let stat = fstat(&there).map_err(|e| SystemError::new(format!("look at shared memory {name}"), e))?;
        if stat.st_uid != own {
            return refuse(of_user(stat.st_uid));
        }
        let found = match Snapshot::read(there.as_fd()) {
            Ok(found) if found.version != 0 => found,
            // A program that was lent the role by a dead daemon writes so fast that its places are never seen whole.
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Snapshot::without_places(there.as_fd())?,
            _ => {
                return refuse(
                    "an object that is not shmd's has this name; remove it, or choose another --prefix".into(),
                );
            }
        };
        let Owner { pid, start, boot_id, .. } = found.owner;
        // This very process, before it executed its file anew: the lock says whether the segment is another daemon's in it.
        let is_own = handover::before().is_some() && pid == std::process::id();
        if process::boot_id()? == boot_id && process::is_alive(pid, start) && !is_own {
            return refuse(format!("the shmd with pid {pid} uses it; stop that one, or choose another --prefix"));
        }
        let claimed = match claim(name, until) {
            Err(error) if is_passing(&error.source) => {
                wait_for_lease(name, until)?;
                continue;
            }
            claimed => claimed?,
        };
        let Some(file) = claimed else {
            let reason = "another shmd has its lock, in another PID namespace or because it is just starting; stop that one, \
                          or choose another --prefix";
            return refuse(reason.to_owned());
        };
        // Checked again: if the name leads to another object by now, that object is checked from the beginning.
        if !shm::leads_to(name, &there) {
            continue;
        }
        let copies = file.try_clone().and_then(|file| Ok((file, there.try_clone()?)));
        let (claim, read_only) = copies.map_err(|e| SystemError::new("duplicate a segment's descriptor", e))?;
        let why = match adopt(Left { name, file: claim, read_only, found })? {
            Ok(adopted) => return Ok(Some(adopted)),
            Err(why) => why,
        };
        let removed = remove_this(Path::new(&shm::path(name)), &there);
        if !removed.map_err(|e| SystemError::new(format!("unlink shared memory {name}"), e))? {
            continue;
        }
        let reason = format!("its daemon, pid {pid}, is no more, and {why}");
        operation(LogEvent::Replace).text("segment", name).reason(reason).number("messages", found.tail.seq).warn();
        return Ok(None);
    }
}

fn taken(name: &str, reason: String) -> SystemError {
    SystemError::new(format!("create shared memory {name}"), io::Error::new(ErrorKind::AlreadyExists, reason))
}

fn of_user(uid: u32) -> String {
    format!("user {}'s object has this name; choose another --prefix", process::user_name(uid))
}

/// Waits a moment for another daemon that is checking whether the object is in use.
///
/// # Errors
/// If that takes too long: then it is another program that has a lease on the object.
fn wait_for_lease(name: &str, until: Instant) -> Result<(), SystemError> {
    if Instant::now() >= until {
        let reason = "a process has a lease on the object of this name (F_SETLEASE); end that process, or choose another --prefix";
        return Err(taken(name, reason.to_owned()));
    }
    std::thread::sleep(LOOK);
    Ok(())
}

/// Removes the segments that a daemon with this prefix and this runtime directory has left for channels that are no
/// longer configured. `used` says which names are in use. What belongs to others stays, without a message.
pub(crate) fn remove_orphans(prefix: &Prefix, owner: Owner, used: impl Fn(&str) -> bool) {
    let begin = format!("{prefix}.");
    let names = fs::read_dir(shm::path("/")).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with(&begin)).map(|name| format!("/{name}")) {
        if used(&name) {
            continue;
        }
        let left = make_way(&name, |left| match left.found.owner.home == owner.home {
            true => Ok(Err("no channel has this name any more".to_owned())),
            false => Ok(Ok(())),
        });
        if let Err(e) = left {
            log::debug!("event=kept segment={name} reason={:?}", e.to_string());
        }
    }
}

/// Opens an object and takes its owner's lock. `None` if another daemon has the lock. A daemon that was just killed
/// holds the lock until the last of its threads and children is gone, so this waits for that.
///
/// A reader of a dead daemon's segment may hold a read lock, and is not a daemon. In that case, the object is opened
/// without the lock, and the daemon that removes the name is the one that continues.
fn claim(name: &str, until: Instant) -> Result<Option<OwnedFd>, SystemError> {
    loop {
        let object = shm::open(name, true)?;
        if file_lock::try_lock(&object, Role::Owner)? || !file_lock::is_locked(&object, Role::Owner)? {
            return Ok(Some(object));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Another daemon is checking whether the object is in use (`is_alone`), or has just removed it.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotFound)
}
