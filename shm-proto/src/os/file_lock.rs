//! Write locks on single bytes of a shared memory object.
//!
//! A lock belongs to the open file description: it lasts until the last descriptor and the last mapping of that description
//! are gone, whichever process holds them. A write lock needs a descriptor that is open for writing, so a process that may
//! only read the object can neither take nor fake one. The bytes need not exist.
//!
//! Each role has a byte of its own. Never lock the whole file: that includes the other roles' bytes.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::retry;
use crate::error::{Error, Result};

/// What a lock says about whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The daemon that made the object, or one that is about to replace it.
    Owner,
    /// The process that writes to the ring.
    Writer,
}

fn request(kind: i32, role: Role) -> libc::flock {
    let l_start = match role {
        Role::Owner => 0,
        Role::Writer => 1,
    };
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start, l_len: 1, l_pid: 0 }
}

/// Takes the lock for the open file description of `fd`, which must be open for writing. Returns `false` if another
/// description has it; never waits. Taking it twice is taking it once.
///
/// # Errors
/// [`Error::System`] if the kernel refuses, for example because `fd` is read-only.
pub fn try_lock(fd: impl AsFd, role: Role) -> Result<bool> {
    let lock = request(libc::F_WRLCK, role);
    match retry(|| fcntl(&fd, FcntlArg::F_OFD_SETLK(&lock))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => {
            Err(Error::system(format!("lock descriptor {} for role {role:?}", fd.as_fd().as_raw_fd()), error))
        }
    }
}

/// Whether another open file description has the lock. Any descriptor of the object may ask. Only write locks count: a read
/// lock, which is in the way of [`try_lock`] as well, can be taken by whoever may read the object.
///
/// # Errors
/// [`Error::System`] if the kernel refuses.
pub fn is_locked(fd: impl AsFd, role: Role) -> Result<bool> {
    // Asked for a read lock, which only others' write locks are in the way of.
    let mut lock = request(libc::F_RDLCK, role);
    match retry(|| fcntl(&fd, FcntlArg::F_OFD_GETLK(&mut lock))) {
        Ok(_) => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        Err(error) => {
            let fd = fd.as_fd().as_raw_fd();
            Err(Error::system(format!("ask whether descriptor {fd} is locked for role {role:?}"), error))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::os::shm;
    use crate::os::testing::{Object, eventually, in_child};

    #[test]
    fn a_lock_is_held_by_one_description_and_seen_by_all() {
        let object = Object::new("lock");
        let first = shm::create(&object.0, 0o600, None).unwrap();
        let (second, reader) = (shm::open(&object.0, true).unwrap(), shm::open(&object.0, false).unwrap());
        assert!(try_lock(&first, Role::Owner).unwrap());
        assert!(try_lock(&first, Role::Owner).unwrap(), "twice is once");
        assert!(!try_lock(&second, Role::Owner).unwrap());
        assert!(is_locked(&second, Role::Owner).unwrap() && is_locked(&reader, Role::Owner).unwrap());
        assert!(!is_locked(&first, Role::Owner).unwrap(), "only another's lock counts");
        assert!(try_lock(&second, Role::Writer).unwrap(), "the roles do not exclude each other");
        drop(first);
        eventually(|| !is_locked(&reader, Role::Owner).unwrap());
    }

    #[test]
    fn a_read_only_descriptor_cannot_take_a_lock() {
        let object = Object::new("lock-reader");
        let writable = shm::create(&object.0, 0o600, None).unwrap();
        let reader = shm::open(&object.0, false).unwrap();
        assert!(try_lock(&reader, Role::Owner).is_err());
        // A read lock it can take. That is in the way, and is not taken for an owner's.
        fcntl(&reader, FcntlArg::F_OFD_SETLK(&request(libc::F_RDLCK, Role::Owner))).unwrap();
        assert!(!try_lock(&writable, Role::Owner).unwrap() && !is_locked(&writable, Role::Owner).unwrap());
        fcntl(&reader, FcntlArg::F_OFD_SETLK(&request(libc::F_UNLCK, Role::Owner))).unwrap();
        assert!(try_lock(&writable, Role::Owner).unwrap());
    }

    #[test]
    fn a_lock_outlives_the_process_that_took_it_while_another_has_the_description() {
        let object = Object::new("lock-handed");
        let _first = shm::create(&object.0, 0o600, None).unwrap();
        let handed = shm::open(&object.0, true).unwrap();
        let taken = in_child(|| i32::from(!try_lock(handed.as_fd(), Role::Writer).unwrap_or(false)));
        assert_eq!(taken.exit_code(), 0);
        let asking = shm::open(&object.0, false).unwrap();
        assert!(is_locked(&asking, Role::Writer).unwrap());
        drop(handed);
        eventually(|| !is_locked(&asking, Role::Writer).unwrap());
    }
}
