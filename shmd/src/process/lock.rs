//! The lock file of a runtime directory.
//!
//! The lock is a write lock of the open file, which needs a descriptor that is open for writing, on a file that nobody but the
//! daemon's user may open: others can neither take it nor wait for it. Besides, there is the `flock` by which earlier versions
//! know each other, on a file that everybody could open. One that is held by nobody who is named in the file is a stranger's,
//! and the file is replaced.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;
use shm_proto::internal::client::LOCK_NAME;
use shm_proto::internal::os::file_lock;
use shm_proto::internal::os::file_lock::Role;
use shm_proto::internal::os::process::{is_alive, start_ticks, user_name};

use super::Error;

/// A user who may open the lock file may also lock it with `flock`, and wait for it.
const LOCK_MODE: u32 = 0o600;
/// How long a lock is waited for whose holder is dead: a daemon that was killed has it until the last of its threads and
/// children is gone, and one that starts has it before it has written that it has.
const RELEASE: Duration = Duration::from_secs(5);
/// How long an earlier version that has locked the file has to write its process number into it.
const WRITTEN: Duration = Duration::from_secs(1);
/// The time between two looks during that wait.
const LOOK: Duration = Duration::from_millis(5);

/// Close-on-exec, as std opens everything, and without waiting, in case that it is a FIFO.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(LOCK_MODE);
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path)
}

/// That the lock file is this user's own, which it may not be in a directory that others could write in before; and its mode,
/// which was another one in earlier versions.
pub(super) fn check(dir: &Path, path: &Path, file: &File) -> Result<(), Error> {
    let found = file.metadata().map_err(Error::system("look at the lock file", path))?;
    let own = geteuid().as_raw();
    let what = if !found.is_file() {
        "is not a regular file".to_owned()
    } else if found.uid() != own {
        format!("belongs to {}, this daemon runs as {}", user_name(found.uid()), user_name(own))
    } else {
        if found.mode() & 0o7777 != LOCK_MODE {
            let mode = Permissions::from_mode(LOCK_MODE);
            file.set_permissions(mode).map_err(Error::system("set the mode of the lock file", path))?;
        }
        return Ok(());
    };
    Err(Error::Unsafe { dir: dir.to_owned(), reason: format!("its {LOCK_NAME} {what}; remove {}", path.display()) })
}

/// What became of the attempt to lock the file.
pub(super) enum Lock {
    /// It is this process's.
    Taken(Flock<File>),
    /// Another daemon has it, as far as the file says this one.
    Held(Option<Holder>),
    /// No daemon has it, but somebody who could open it in an earlier version's time is in the way.
    Obstructed(File),
}

/// Takes both locks. Of a file that has lost its name they may be had as well.
pub(super) fn take(file: File) -> io::Result<Lock> {
    let until = Instant::now() + RELEASE;
    while !file_lock::try_lock(&file, Role::Owner).map_err(io::Error::other)? {
        if !file_lock::is_locked(&file, Role::Owner).map_err(io::Error::other)? {
            // A read lock, of somebody who could open the file when everybody could.
            return Ok(Lock::Obstructed(file));
        }
        let holder = holder(&file);
        if holder.is_some_and(Holder::is_alive) || Instant::now() >= until {
            return Ok(Lock::Held(holder));
        }
        sleep(LOOK);
    }
    match lock_as_before(file) {
        Ok(lock) => Ok(Lock::Taken(lock)),
        Err((file, Errno::EWOULDBLOCK)) => match holder(&file) {
            Some(holder) if holder.is_alive() => Ok(Lock::Held(Some(holder))),
            _ => Ok(Lock::Obstructed(file)),
        },
        Err((_, e)) => Err(e.into()),
    }
}

/// The lock of earlier versions. One of those that is just starting has not written yet who it is, so it gets the time.
fn lock_as_before(mut file: File) -> Result<Flock<File>, (File, Errno)> {
    let until = Instant::now() + WRITTEN;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((file, Errno::EWOULDBLOCK))
                if Instant::now() < until && !holder(&file).is_some_and(Holder::is_alive) =>
            {
                file
            }
            locked => return locked,
        };
        sleep(LOOK);
    }
}

/// Names the holder.
pub(super) fn write_holder(lock: &mut File) -> io::Result<()> {
    let pid = std::process::id();
    lock.set_len(0)?;
    lock.rewind()?;
    lock.write_all(format!("{pid} {}\n", start_ticks(pid).unwrap_or(0)).as_bytes())
}

/// The holder that a lock file names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) pid: u32,
    start: u64,
}

impl Holder {
    fn is_alive(self) -> bool {
        is_alive(self.pid, self.start)
    }
}

/// No more is read than a holder writes.
fn holder(file: &File) -> Option<Holder> {
    let mut bytes = [0; 64];
    let len = file.read_at(&mut bytes, 0).ok()?;
    let mut words = std::str::from_utf8(&bytes[..len]).ok()?.split_ascii_whitespace();
    Some(Holder {
        pid: words.next()?.parse().ok()?,
        start: words.next().and_then(|start| start.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::process::Instance;
    use shm_test_support::TempDir;

    /// The lock file of an earlier version with a text in it.
    fn of_earlier_version(dir: &TempDir, text: &str) -> std::path::PathBuf {
        let path = dir.path().join(LOCK_NAME);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn wait_in_flock(path: &Path, how: FlockArg) -> Flock<File> {
        Flock::lock(File::open(path).unwrap(), how).unwrap()
    }

    #[test]
    fn nobody_else_may_open_it_also_where_an_earlier_version_let_everybody() {
        let dir = TempDir::new();
        let path = of_earlier_version(&dir, "1 1\n");
        let instance = Instance::take(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        drop(instance);
        let _instance = Instance::take(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_stranger_that_waited_in_flock_does_not_stop_a_daemon_nor_the_next() {
        for how in [FlockArg::LockExclusiveNonblock, FlockArg::LockSharedNonblock] {
            let dir = TempDir::new();
            // Of a daemon that is dead, and of one that was killed before it wrote anything.
            for text in ["1 1\n", ""] {
                let path = of_earlier_version(&dir, text);
                let _stranger = wait_in_flock(&path, how);
                let instance = Instance::take(dir.path()).unwrap();
                assert!(matches!(Instance::take(dir.path()), Err(Error::Taken { .. })));
                drop(instance);
                assert!(!path.exists());
            }
        }
    }

    #[test]
    fn a_stranger_with_a_read_lock_does_not_stop_a_daemon_either() {
        use nix::fcntl::{FcntlArg, fcntl};
        use nix::libc;
        let dir = TempDir::new();
        let path = of_earlier_version(&dir, "1 1\n");
        let stranger = File::open(&path).unwrap();
        let all = libc::flock {
            l_type: libc::F_RDLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&stranger, FcntlArg::F_OFD_SETLK(&all)).unwrap();
        let _instance = Instance::take(dir.path()).unwrap();
        assert!(matches!(Instance::take(dir.path()), Err(Error::Taken { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_daemon_of_an_earlier_version_that_lives_keeps_the_directory() {
        let dir = TempDir::new();
        let pid = std::process::id();
        let path = of_earlier_version(&dir, &format!("{pid} {}\n", start_ticks(pid).unwrap()));
        let _earlier = wait_in_flock(&path, FlockArg::LockExclusiveNonblock);
        assert!(matches!(Instance::take(dir.path()), Err(Error::Taken { pid: Some(it), .. }) if it == pid));
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_file_under_the_name_is_refused_without_waiting() {
        let dir = TempDir::new();
        let path = dir.path().join(LOCK_NAME);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let refused = Instance::take(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("its shmd.lock is not a regular file; remove "), "{refused}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(Instance::take(dir.path()).is_err());
        assert!(path.is_symlink());
    }
}
