//! Segments of daemons that are no more. `--fix` removes one only after the checks by which a daemon decides the same question.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use shm_proto::internal::os::file_id::FileId;
use shm_proto::internal::os::file_lock::{self, Role};
use shm_proto::internal::os::process::{boot_id, is_alive, mapped_by, user_name};
use shm_proto::internal::os::remove::remove_this;
use shm_proto::internal::os::shm;
use shm_proto::internal::ring::Snapshot;

use super::finding::{Finding, Severity};
use super::site::unit_of;
use crate::human::{bytes, counted, printable};

/// Looks at every object in `/dev/shm` that this user may read and that is a segment by its magic number.
pub(super) fn look(fix: bool) -> Vec<Finding> {
    let names = std::fs::read_dir(shm::path("/")).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names.iter().filter_map(|name| look_at(&format!("/{name}"), fix)).collect()
}

fn look_at(name: &str, fix: bool) -> Option<Finding> {
    let object = shm::open(name, false).ok()?;
    let found = match Snapshot::read(object.as_fd()) {
        Ok(found) => found,
        // A writer is so fast that its places are never seen whole.
        Err(e) if e.kind() == ErrorKind::ResourceBusy => Snapshot::without_places(object.as_fd()).ok()?,
        Err(_) => return None,
    };
    let owner = found.owner;
    let of_this_boot = boot_id().ok()? == owner.boot_id;
    // The lock is seen from every PID namespace; the process number is not.
    let is_owned = found.version == 0
        || (of_this_boot && is_alive(owner.pid, owner.start))
        || file_lock::is_locked(&object, Role::Owner).unwrap_or(true);
    if is_owned {
        return None;
    }
    let path = shm::path(name);
    let stat = fstat(&object).ok()?;
    let memory = bytes(u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
    let when = if of_this_boot { "" } else { ", before the last boot" };
    let users = users(&object);
    let in_use = match users.as_slice() {
        [] => String::new(),
        pids => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            let noun = if pids.len() == 1 { "process" } else { "processes" };
            format!("; {noun} {} still use it and wait for a daemon", pids.join(", "))
        }
    };
    let mut finding = Finding::new(
        Severity::Warning,
        "leftover",
        format!("{path} takes {memory}, and its daemon (pid {}) is no more{in_use}", owner.pid),
        format!(
            "the daemon was killed{when}; the next daemon with the same prefix and runtime directory goes on with the segment \
             ({}), and otherwise nobody does",
            counted(found.tail.seq, "message", "s")
        ),
        if users.is_empty() { "shmctl doctor --fix".to_owned() } else { start(name, stat.st_uid) },
    );
    if fix {
        let removed = remove(name, &path, stat.st_uid);
        finding.mended = removed.is_ok();
        finding.fixed = Some(match removed {
            Ok(()) => "removed".to_owned(),
            Err(reason) => printable(format!("not removed: {reason}")),
        });
    }
    Some(finding)
}

/// What starts the daemon whose segment this is. Its prefix says whether it is the system's, an instance or a user's own.
fn start(name: &str, uid: u32) -> String {
    let prefix = name.trim_start_matches('/').split('.').next().unwrap_or_default();
    match unit_of(prefix) {
        Some(unit) => format!("systemctl start {unit}"),
        None => format!("start the shmd of user {} again, as it was started before", user_name(uid)),
    }
}

/// Processes that have it mapped, and a writer that has its lock.
fn users(object: &impl AsFd) -> Vec<u32> {
    FileId::of(object).map(mapped_by).unwrap_or_default()
}

/// Removes the name, if this is the user's own object and no process of any PID namespace uses it.
fn remove(name: &str, path: &str, uid: u32) -> Result<(), String> {
    let own = geteuid();
    if !own.is_root() && own.as_raw() != uid {
        return Err(format!("it belongs to {}; run this as that user or as root", user_name(uid)));
    }
    let object = shm::open(name, true).map_err(|e| e.to_string())?;
    // With this lock no daemon takes it over meanwhile. It is the lock that says that a daemon lives.
    if !file_lock::try_lock(&object, Role::Owner).map_err(|e| e.to_string())? {
        return Err("a daemon has just taken it over, or a process that reads it holds a lock".to_owned());
    }
    if file_lock::is_locked(&object, Role::Writer).map_err(|e| e.to_string())? {
        return Err("a program still writes to it; end that program, or start the daemon".to_owned());
    }
    let users = users(&object);
    if !users.is_empty() {
        return Err(format!("processes {users:?} use it; end these programs, or start the daemon"));
    }
    match remove_this(Path::new(path), &object) {
        Ok(true) => Ok(()),
        Ok(false) => Err("the name leads to another object by now".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}
