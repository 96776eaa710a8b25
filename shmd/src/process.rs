//! One instance for each runtime directory: the directory and the lock file in it, both gone after a clean end.

mod lock;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, OFlag};
use nix::unistd::geteuid;
use shm_proto::internal::client::LOCK_NAME;
use shm_proto::internal::os::file_id::FileId;
use shm_proto::internal::os::process::user_name;
use shm_proto::internal::os::remove::remove_this;

use crate::cleanup;
use crate::operation_log::{LogEvent, operation};
use lock::{Holder, Lock};

/// A second daemon may take the lock file away between our opening and our locking it, each time by ending itself.
const TRIES: u32 = 100;

/// Why this process cannot be the daemon of a runtime directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another daemon is.
    #[error(
        "another shmd ({}, runtime dir {}) holds {}; stop it, or give this one another --runtime-dir",
        pid.map_or_else(|| "pid not known".to_owned(), |pid| format!("pid {pid}")), dir.display(), lock.display()
    )]
    Taken {
        /// The other's process number, when it has written it already.
        pid: Option<u32>,
        /// The runtime directory.
        dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// Another user could put a socket or a lock of their own into it.
    #[error("runtime dir {}: {reason}", dir.display())]
    Unsafe {
        /// The runtime directory.
        dir: PathBuf,
        /// The user, the danger, and the way out.
        reason: String,
    },
    /// A system call failed.
    #[error("{action} {}: {source}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    fn system(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Error::System { action, path, source }
    }
}

/// This process as the daemon of a runtime directory. Dropping it removes the lock file, and the directory if this
/// process made it and nothing else is left in it.
#[derive(Debug)]
pub(crate) struct Instance {
    dir: OwnedFd,
    /// Goes after the lock file, and before the lock is given up.
    made: RuntimeDir,
    lock: Flock<File>,
    lock_path: PathBuf,
}

/// A directory that is ours, removed when dropped if we made it.
#[derive(Debug)]
struct RuntimeDir {
    path: PathBuf,
    created: bool,
}

impl Instance {
    /// Makes the directory if it is missing (0755 for root, whose clients are others; else 0700) and locks it.
    ///
    /// # Errors
    /// [`Error::Taken`] when another daemon runs there, [`Error::Unsafe`] when others could write in it.
    pub(crate) fn take(runtime_dir: &Path) -> Result<Self, Error> {
        let lock_path = runtime_dir.join(LOCK_NAME);
        for _ in 0..TRIES {
            let (made, dir) = RuntimeDir::open(runtime_dir)?;
            let file = match lock::open(&lock_path) {
                // The last daemon has just removed the directory that it had made.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(Error::system("open the lock file", &lock_path))?,
            };
            lock::check(runtime_dir, &lock_path, &file)?;
            let taken = |holder: Option<Holder>| Error::Taken {
                pid: holder.map(|holder| holder.pid),
                dir: runtime_dir.to_owned(),
                lock: lock_path.clone(),
            };
            let mut lock = match lock::take(file).map_err(Error::system("lock", &lock_path))? {
                Lock::Taken(lock) if is_at(&lock, &lock_path) => lock,
                Lock::Held(holder) => return Err(taken(holder)),
                Lock::Obstructed(file)
                    if remove_this(&lock_path, &file).map_err(Error::system("remove the lock file", &lock_path))? =>
                {
                    let reason = "a process that is not shmd holds a lock on it";
                    operation(LogEvent::Replace).text("lock", lock_path.display()).reason(reason).warn();
                    continue;
                }
                // The daemon that had it has just removed it.
                Lock::Taken(_) | Lock::Obstructed(_) => continue,
            };
            lock::write_holder(&mut lock).map_err(Error::system("write the lock file", &lock_path))?;
            log::debug!("event=locked lock={} created_dir={}", lock_path.display(), made.created);
            return Ok(Instance { dir, made, lock, lock_path });
        }
        Err(Error::system("lock", &lock_path)(io::Error::other("other daemons keep starting and ending there")))
    }
}

impl Instance {
    /// Goes on as the daemon of a directory, in another program of the same process, with the lock that was never given up.
    ///
    /// # Errors
    /// When the directory or the lock file is not what it was.
    pub(crate) fn left(runtime_dir: &Path, lock: OwnedFd, made_dir: bool) -> Result<Self, Error> {
        let lock_path = runtime_dir.join(LOCK_NAME);
        let (mut made, dir) = RuntimeDir::open(runtime_dir)?;
        made.created |= made_dir;
        let lock = match lock::take(lock.into()).map_err(Error::system("lock", &lock_path))? {
            Lock::Taken(lock) if is_at(&lock, &lock_path) => lock,
            _ => return Err(Error::system("lock", &lock_path)(io::Error::other("another file has its name"))),
        };
        Ok(Instance { dir, made, lock, lock_path })
    }

    /// The lock's descriptor, and whether this instance removes the directory, for [`left`](Self::left).
    pub(crate) fn parts(&self) -> (BorrowedFd<'_>, bool) {
        (self.lock.as_fd(), self.made.created)
    }

    /// The runtime directory, which nobody else may write in.
    pub(crate) fn dir(&self) -> Result<OwnedFd, io::Error> {
        self.dir.try_clone()
    }
}

impl Drop for Instance {
    /// While the lock is still held, so that nobody else's file is removed.
    fn drop(&mut self) {
        if is_at(&self.lock, &self.lock_path)
            && let Err(e) = fs::remove_file(&self.lock_path)
        {
            cleanup::failed(None, self.lock_path.display(), e);
        }
    }
}

impl RuntimeDir {
    fn open(path: &Path) -> Result<(Self, OwnedFd), Error> {
        let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
        let created = match DirBuilder::new().mode(mode).create(path) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(Error::system("make the runtime directory", path)(e)),
        };
        let this = RuntimeDir { path: path.to_owned(), created };
        let dir = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
            .open(path)
            .map_err(Error::system("open the runtime directory (a link is not followed)", path))?;
        if created {
            // The umask may have taken bits off.
            dir.set_permissions(Permissions::from_mode(mode))
                .map_err(Error::system("set the mode of the runtime directory", path))?;
        }
        let found = dir.metadata().map_err(Error::system("look at the runtime directory", path))?;
        check_owner(path, found.uid(), found.mode() & 0o7777)?;
        Ok((this, dir.into()))
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if self.created {
            match fs::remove_dir(&self.path) {
                Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    cleanup::failed(None, self.path.display(), e);
                }
                _ => {}
            }
        }
    }
}

fn check_owner(path: &Path, owner: u32, mode: u32) -> Result<(), Error> {
    let own = geteuid().as_raw();
    let reason = if owner != own {
        format!(
            "it belongs to {}, this daemon runs as {}; name another --runtime-dir",
            user_name(owner),
            user_name(own)
        )
    } else if mode & 0o022 != 0 {
        format!("its mode {mode:04o} lets other users write to it; run chmod go-w {}", path.display())
    } else {
        return Ok(());
    };
    Err(Error::Unsafe { dir: path.to_owned(), reason })
}

/// Whether the path still leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    FileId::at(path).is_ok_and(|named| FileId::of(file) == Ok(named))
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::os::process::start_ticks;

    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn the_directory_and_the_lock_file_are_gone_after_the_instance() {
        let parent = TempDir::new();
        let dir = parent.path().join("run");
        let instance = Instance::take(&dir).unwrap();
        let expected = if geteuid().is_root() { 0o755 } else { 0o700 };
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, expected);
        let text = fs::read_to_string(dir.join(LOCK_NAME)).unwrap();
        let pid = std::process::id();
        assert_eq!(text, format!("{pid} {}\n", start_ticks(pid).unwrap()));
        drop(instance);
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_that_was_there_stays_without_the_lock_file() {
        let parent = TempDir::new();
        drop(Instance::take(parent.path()).unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_second_instance_is_told_who_holds_the_lock() {
        let parent = TempDir::new();
        let dir = parent.path().join("run");
        let first = Instance::take(&dir).unwrap();
        let message = Instance::take(&dir).unwrap_err().to_string();
        let (pid, dir_text) = (std::process::id(), dir.display());
        let wanted = format!("another shmd (pid {pid}, runtime dir {dir_text}) holds {dir_text}/shmd.lock");
        assert!(message.starts_with(&wanted), "{message}");
        assert!(dir.join(LOCK_NAME).exists());
        drop(first);
        drop(Instance::take(&dir).unwrap());
    }

    #[test]
    fn a_lock_file_left_by_a_dead_daemon_is_taken_over() {
        let parent = TempDir::new();
        fs::write(parent.path().join(LOCK_NAME), "1 123456789012345678901234567890\nand more\n").unwrap();
        let _instance = Instance::take(parent.path()).unwrap();
        let text = fs::read_to_string(parent.path().join(LOCK_NAME)).unwrap();
        assert!(text.starts_with(&format!("{} ", std::process::id())) && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn a_lock_file_that_took_the_place_of_ours_is_not_removed() {
        let parent = TempDir::new();
        let instance = Instance::take(parent.path()).unwrap();
        let lock = parent.path().join(LOCK_NAME);
        fs::remove_file(&lock).unwrap();
        fs::write(&lock, "somebody else's").unwrap();
        drop(instance);
        assert!(lock.exists());
    }

    #[test]
    fn a_directory_that_others_may_write_in_is_refused_with_the_way_out() {
        let parent = TempDir::new();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o775)).unwrap();
        let message = Instance::take(parent.path()).unwrap_err().to_string();
        assert!(message.contains("0775") && message.contains("chmod go-w"), "{message}");
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let other = geteuid().as_raw() + 1;
        let message = check_owner(Path::new("/x"), other, 0o755).unwrap_err().to_string();
        assert!(message.contains(&user_name(other)) && message.contains("--runtime-dir"), "{message}");
    }

    #[test]
    fn a_link_is_not_taken_for_a_directory() {
        let parent = TempDir::new();
        let link = parent.path().join("run");
        std::os::unix::fs::symlink(parent.path(), &link).unwrap();
        assert!(matches!(Instance::take(&link), Err(Error::System { .. })));
    }

    #[test]
    fn a_missing_parent_is_named() {
        let message = Instance::take(Path::new("/nonexistent/run")).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/run"), "{message}");
    }

    #[test]
    fn many_that_start_and_end_at_once_never_hold_the_lock_together() {
        let parent = TempDir::new();
        let dir = parent.path().join("run");
        let holders = std::sync::atomic::AtomicU32::new(0);
        let taken = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(instance) = Instance::take(&dir) {
                            assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            taken.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(instance);
                        }
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }
}
