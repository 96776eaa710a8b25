//! The control socket in the runtime directory: one that the daemon makes, or one that the service manager keeps for it.

mod handed_over;

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{Backlog, listen};
use nix::sys::stat::{Mode, umask};
use shm_proto::internal::os::socket_name::is_in_use;
use shm_proto::{Error, Result};

use crate::cleanup;
use crate::closing;
use crate::operation_log::{LogEvent, operation};

pub(crate) use handed_over::{Unfit, take};

/// Connections that may wait to be accepted. They are accepted in their order, so this is how many a client may find before
/// it: with the system's limit, 4096 by default, two clients that connect, ask and hang up in a loop would keep the others
/// waiting for a second. Who finds the queue full waits in `connect`.
const BACKLOG: i32 = 128;
/// Anybody who gets into the directory may connect; who may do what is decided by the peer's credentials.
const MODE: u32 = 0o666;
/// How long a dead daemon's socket may still be open: its children are killed with it, and the last of them may still be ending.
const CLOSING: Duration = Duration::from_secs(1);
/// The time between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// The control socket; its name is removed when dropped, unless the service manager keeps the socket.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Nonblocking.
    pub(crate) listener: UnixListener,
    /// Its name.
    pub(crate) path: PathBuf,
    /// The service manager keeps it: clients that come while there is no daemon wait in its queue.
    pub(crate) is_kept: bool,
}

impl Socket {
    /// Listens. A socket that is there already is a dead daemon's if no process has it any more: the lock is ours.
    ///
    /// # Errors
    /// When the name is taken by something else, too long, or not to be made.
    pub(crate) fn bind(path: PathBuf) -> Result<Self> {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
            await_end(&path)
                .map_err(|e| Error::system(format!("listen on the control socket {}", path.display()), e))?;
            fs::remove_file(&path)
                .map_err(|e| Error::system(format!("remove the stale socket {}", path.display()), e))?;
            operation(LogEvent::Replace).text("socket", path.display()).reason("its daemon has ended").warn();
        }
        let failed = |e| Error::system(format!("listen on the control socket {}", path.display()), e);
        let listener = bind(&path).map_err(failed)?;
        let socket = Self { listener, path: path.clone(), is_kept: false };
        prepare(&socket.listener).map_err(failed)?;
        // Where the thread that made it could not have a umask of its own.
        fs::set_permissions(&socket.path, Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(socket)
    }

    /// The one that the program before this one in the same process has left. Clients that have connected meanwhile are in it.
    pub(crate) fn left(path: PathBuf, listener: OwnedFd, is_kept: bool) -> Self {
        Self { listener: listener.into(), path, is_kept }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        closing::listener(&self.listener);
        if self.is_kept {
            return;
        }
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => cleanup::failed(None, self.path.display(), e),
            _ => {}
        }
    }
}

/// A socket of that name. A socket has the mode that the umask leaves, and programs of other users that found it with such a mode
/// would be refused. So it is made by a thread that has a umask of its own, if the system lets it.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let make = || {
        if unshare(CloneFlags::CLONE_FS).is_ok() {
            umask(Mode::from_bits_truncate(!MODE & 0o777));
        }
        UnixListener::bind(path)
    };
    thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, make) {
        Ok(making) => making.join().unwrap_or_else(|panic| resume_unwind(panic)),
        Err(_) => UnixListener::bind(path),
    })
}

/// To listen once more on a socket that the service manager has made changes its queue, and makes the kernel tell clients that
/// this process is their peer, and not the manager.
fn prepare(listener: &UnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    Backlog::new(BACKLOG).and_then(|backlog| listen(listener, backlog)).map_err(io::Error::from)
}

/// Waits until no process has a socket any more.
fn await_end(path: &Path) -> io::Result<()> {
    let until = Instant::now() + CLOSING;
    while is_in_use(path)? {
        if Instant::now() >= until {
            let why = "a process without the daemon's lock listens there, as systemd does for shmd.socket; start the daemon with \
                       systemctl start shmd, or run systemctl stop shmd.socket before, or choose another --runtime-dir";
            return Err(io::Error::new(ErrorKind::AddrInUse, why));
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use shm_test_support::TempDir;

    /// Says that it is over, also when the test fails.
    struct Over<'a>(&'a AtomicBool);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_finds_the_name_may_connect() {
        if let Err(e) = thread::spawn(|| unshare(CloneFlags::CLONE_FS)).join().unwrap() {
            eprintln!("SKIPPED whoever_finds_the_name_may_connect: no thread may have a umask of its own here: {e}");
            return;
        }
        let dir = TempDir::new();
        let path = dir.join("shmd.sock");
        let (over, seen, shut) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(found) = fs::symlink_metadata(&path) {
                        seen.fetch_add(1, Ordering::Relaxed);
                        shut.fetch_add(usize::from(found.mode() & 0o777 != 0o666), Ordering::Relaxed);
                    }
                }
            });
            let _over = Over(&over);
            let mut made = 0;
            while made < 500 || seen.load(Ordering::Relaxed) < 1000 {
                drop(Socket::bind(path.clone()).unwrap());
                made += 1;
            }
        });
        assert_eq!(shut.load(Ordering::Relaxed), 0, "of {seen:?} looks");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_daemon_has_left_is_replaced_and_what_is_no_socket_stays() {
        let dir = TempDir::new();
        let path = dir.join("shmd.sock");
        drop(UnixListener::bind(&path).unwrap());
        drop(Socket::bind(path.clone()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "somebody's").unwrap();
        let refused = Socket::bind(path.clone()).unwrap_err().to_string();
        assert!(refused.contains(path.to_str().unwrap()) && refused.contains("in use"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
