//! Write locks on bytes of a shared memory object: which process owns it, and whether one may still write to it.
//!
//! | bytes | whose lock |
//! |---|---|
//! | 0 | the daemon's that made the object, or of one that is about to replace it |
//! | 1, 2, 3, ... | of the first, second, third, ... program that is lent the writer role |
//!
//! A lock belongs to the open file description: it lasts until the last descriptor and the last mapping of that description
//! are gone, whichever process holds them. The bytes need not exist.
//!
//! # What readers can do
//!
//! A write lock needs a descriptor that is open for writing, so a process that may only read the object cannot take one. It can
//! take a *read* lock, and a read lock keeps others from taking a write lock. Therefore read locks mean nothing ([`is_locked`]
//! sees only write locks), and the daemon [locks](try_lock) all bytes before any other process can open the object, and
//! [hands](hand_over) single bytes on.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::retry;
use crate::error::{Result, SystemError};

/// What a lock says about the process that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The daemon that made the object, or a daemon that is about to replace it.
    Owner,
    /// The process that writes to the ring: any of the bytes from 1 on.
    Writer,
}

/// Attempts to hand a byte over. A reader that locks a byte between the two calls costs one attempt and that byte.
const ATTEMPTS: u64 = 1000;
/// The first byte that can be handed to a writer.
pub const FIRST_WRITER: u64 = 1;

impl Role {
    /// The first byte, and the number of bytes; 0 for all that follow.
    fn bytes(self) -> (u64, u64) {
        match self {
            Role::Owner => (0, 1),
            Role::Writer => (FIRST_WRITER, 0),
        }
    }
}

fn request(kind: i32, (start, len): (u64, u64)) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start as i64,
        l_len: len as i64,
        l_pid: 0,
    }
}

/// Sets or removes a lock. Returns `false` if a lock of another description is in the way.
fn set(fd: &impl AsFd, kind: i32, bytes: (u64, u64)) -> Result<bool, SystemError> {
    match retry(|| fcntl(fd, FcntlArg::F_OFD_SETLK(&request(kind, bytes)))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => {
            let fd = fd.as_fd().as_raw_fd();
            Err(SystemError::new(format!("lock byte {} of descriptor {fd}", bytes.0), error))
        }
    }
}

/// Takes the lock for the open file description of `fd`, which must be open for writing. For the writers, that is a lock on all
/// of their bytes. Returns `false` if another description has a lock on any of the bytes. Never waits. A second call for the
/// same description changes nothing.
///
/// # Errors
/// [`SystemError`] if the kernel refuses, for example because `fd` is read-only.
pub fn try_lock(fd: impl AsFd, role: Role) -> Result<bool, SystemError> {
    set(&fd, libc::F_WRLCK, role.bytes())
}

/// Whether another open file description has the lock; for the writers, a lock on any of their bytes. Any descriptor of the
/// object will do. Only write locks count: every process that may read the object can take a read lock, although a read lock
/// makes [`try_lock`] fail, too.
///
/// # Errors
/// [`SystemError`] if the kernel refuses.
pub fn is_locked(fd: impl AsFd, role: Role) -> Result<bool, SystemError> {
    Ok(locked(&fd, role.bytes())?.is_some())
}

/// A write lock of another description on any of the bytes: its first byte, and its number of bytes, 0 for all that follow.
fn locked(fd: &impl AsFd, bytes: (u64, u64)) -> Result<Option<(u64, u64)>, SystemError> {
    // The question is for a read lock: only write locks of others would be in its way.
    let mut lock = request(libc::F_RDLCK, bytes);
    match retry(|| fcntl(fd, FcntlArg::F_OFD_GETLK(&mut lock))) {
        Ok(_) if i32::from(lock.l_type) == libc::F_UNLCK => Ok(None),
        Ok(_) => Ok(Some((lock.l_start as u64, lock.l_len as u64))),
        Err(error) => {
            let fd = fd.as_fd().as_raw_fd();
            Err(SystemError::new(format!("ask for locks of descriptor {fd} from byte {}", bytes.0), error))
        }
    }
}

/// Whether the description of `theirs` has a writer's byte and no other description has one, except that of `ours`, which has the
/// bytes that have not been handed over. Both lead to the same object.
///
/// # Errors
/// [`SystemError`] if the kernel refuses.
pub fn is_only_writer(ours: impl AsFd, theirs: impl AsFd) -> Result<bool, SystemError> {
    let Some((byte, 1)) = locked(&ours, Role::Writer.bytes())? else { return Ok(false) };
    // The kernel returns any one of the locks that are in the way, not the first.
    let is_free = |from, len| Ok::<_, SystemError>(locked(&ours, (from, len))?.is_none());
    let before = byte == FIRST_WRITER || is_free(FIRST_WRITER, byte - FIRST_WRITER)?;
    Ok(before && is_free(byte + 1, 0)? && locked(&theirs, (byte, 1))?.is_none())
}

/// Takes the free bytes of the writers, of an object that another daemon has left. Returns the first byte that can be handed
/// over: it and all bytes after it are taken. `None` if a read lock is in the way.
///
/// # Errors
/// [`SystemError`] if the kernel refuses.
pub fn take_over(fd: impl AsFd) -> Result<Option<u64>, SystemError> {
    let mut first = FIRST_WRITER;
    for _ in 0..ATTEMPTS {
        if set(&fd, libc::F_WRLCK, (first, 0))? {
            return Ok(Some(first));
        }
        // A lock of one byte belongs to a writer, and stays.
        let mut lock = request(libc::F_WRLCK, (first, 0));
        if let Err(error) = retry(|| fcntl(&fd, FcntlArg::F_OFD_GETLK(&mut lock))) {
            return Err(SystemError::new(format!("ask for the locks from byte {first} on"), error));
        }
        match i32::from(lock.l_type) {
            libc::F_UNLCK => {}
            libc::F_WRLCK if lock.l_len == 1 => first = (lock.l_start as u64).saturating_add(1).max(first),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Hands a writer's byte from the description of `from`, which has all bytes from `first` on, to the description of `to`. Returns
/// the next byte that can be handed over.
///
/// # Errors
/// [`SystemError`] if the kernel refuses, or if a reader has locked the byte at each attempt.
pub fn hand_over(from: impl AsFd, to: impl AsFd, first: u64) -> Result<u64, SystemError> {
    for byte in (first..).take(ATTEMPTS as usize) {
        set(&from, libc::F_UNLCK, (byte, 1))?;
        if set(&to, libc::F_WRLCK, (byte, 1))? {
            return Ok(byte + 1);
        }
    }
    let reason = std::io::Error::from(Errno::EAGAIN);
    Err(SystemError::new(format!("hand one of {ATTEMPTS} writer's locks over, from byte {first} on"), reason))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;
    use crate::os::shm;
    use shm_test_support::{Object, in_child, wait_until};

    fn read_lock(fd: &OwnedFd, bytes: (u64, u64)) -> bool {
        set(fd, libc::F_RDLCK, bytes).unwrap()
    }

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
        wait_until("the lock is given up", || !is_locked(&reader, Role::Owner).unwrap());
    }

    #[test]
    fn a_read_only_descriptor_cannot_take_a_lock_nor_fake_one() {
        let object = Object::new("lock-reader");
        let writable = shm::create(&object.0, 0o600, None).unwrap();
        let reader = shm::open(&object.0, false).unwrap();
        assert!(try_lock(&reader, Role::Owner).is_err());
        assert!(read_lock(&reader, (0, 0)));
        for role in [Role::Owner, Role::Writer] {
            assert!(!is_locked(&writable, role).unwrap(), "a read lock says nothing");
        }
        assert!(!try_lock(&writable, Role::Owner).unwrap(), "but it is in the way");
        assert!(set(&reader, libc::F_UNLCK, (0, 0)).unwrap() && try_lock(&writable, Role::Owner).unwrap());
    }

    #[test]
    fn readers_cannot_keep_the_lock_from_writers() {
        let object = Object::new("lock-kept");
        let keeper = shm::create(&object.0, 0o600, None).unwrap();
        assert!(try_lock(&keeper, Role::Writer).unwrap());
        let reader = shm::open(&object.0, false).unwrap();
        assert!(!read_lock(&reader, (1, 0)) && !read_lock(&reader, (7, 1)), "all bytes are taken");
        let mut next = FIRST_WRITER;
        for _ in 0..3 {
            let writer = shm::open(&object.0, true).unwrap();
            next = hand_over(&keeper, &writer, next).unwrap();
            assert!(is_locked(&keeper, Role::Writer).unwrap() && is_locked(&reader, Role::Writer).unwrap());
            drop(writer);
            wait_until("the lock is given up", || !is_locked(&keeper, Role::Writer).unwrap());
            // What was handed over is free for readers, and of no use any more.
            assert!(read_lock(&reader, (next - 1, 1)));
        }
        // One that was fast.
        assert!(set(&keeper, libc::F_UNLCK, (next, 1)).unwrap() && read_lock(&reader, (next, 1)));
        let writer = shm::open(&object.0, true).unwrap();
        assert_eq!(hand_over(&keeper, &writer, next).unwrap(), next + 2);
        assert!(is_locked(&keeper, Role::Writer).unwrap());
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
        wait_until("the lock is given up", || !is_locked(&asking, Role::Writer).unwrap());
    }

    #[test]
    fn who_comes_after_the_keeper_takes_what_nobody_has_and_knows_the_writer_by_its_descriptor() {
        let object = Object::new("lock-next");
        let keeper = shm::create(&object.0, 0o600, None).unwrap();
        assert!(try_lock(&keeper, Role::Writer).unwrap());
        let (writer, other) = (shm::open(&object.0, true).unwrap(), shm::open(&object.0, true).unwrap());
        let second = hand_over(&keeper, &writer, FIRST_WRITER).unwrap();
        assert!(is_only_writer(&keeper, &writer).unwrap() && !is_only_writer(&keeper, &other).unwrap());
        drop(keeper);
        let next = shm::open(&object.0, true).unwrap();
        wait_until("the lock is free", || take_over(&next).unwrap() == Some(second));
        assert!(is_only_writer(&next, &writer).unwrap() && !is_only_writer(&next, &other).unwrap());
        // The next one hands on as the first did; then there are two, and neither is the only one.
        hand_over(&next, &other, second).unwrap();
        assert!(!is_only_writer(&next, &writer).unwrap() && !is_only_writer(&next, &other).unwrap());
        drop(other);
        wait_until("no other writer has it", || is_only_writer(&next, &writer).unwrap());
        drop(writer);
        wait_until("the lock is given up", || !is_locked(&next, Role::Writer).unwrap());
        drop(next);
        // A reader that was faster is in the way, and nobody counts on the locks.
        let reader = shm::open(&object.0, false).unwrap();
        wait_until("the lock is free", || read_lock(&reader, (5, 1)));
        let late = shm::open(&object.0, true).unwrap();
        assert_eq!(take_over(&late).unwrap(), None);
    }

    #[test]
    fn a_mapping_is_as_good_as_a_descriptor() {
        let object = Object::new("lock-mapped");
        let keeper = shm::create(&object.0, 0o600, None).unwrap();
        assert!(try_lock(&keeper, Role::Writer).unwrap());
        let writer = shm::open(&object.0, true).unwrap();
        hand_over(&keeper, &writer, FIRST_WRITER).unwrap();
        let mapping = crate::os::map::Mapping::read_write(writer.as_fd(), 4096).unwrap();
        drop(writer);
        assert!(is_locked(&keeper, Role::Writer).unwrap());
        drop(mapping);
        wait_until("the lock is given up", || !is_locked(&keeper, Role::Writer).unwrap());
    }
}
