//! The control socket in the runtime directory: one that the daemon makes, or one that the service manager keeps for it.

mod handed_over;

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{Backlog, listen};
use shm_proto::internal::os::socket_name::is_in_use;
use shm_proto::{Error, Result};

use crate::cleanup;
use crate::operation_log::{LogEvent, operation};

pub(crate) use handed_over::{Unfit, take};

/// Connections that may wait to be accepted. They are accepted in their order, so this is how many a client may find before
/// it: with the system's limit, 4096 by default, two clients that connect, ask and hang up in a loop would keep the others
/// waiting for a second. Who finds the queue full waits in `connect`.
const BACKLOG: i32 = 128;
/// The name that a socket has until it can be used.
const NEW: &str = "shmd.new";
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
        // A socket that is made has the mode that the umask leaves, and other users' programs would be refused until that is changed.
        let new = path.with_file_name(NEW);
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(failed)?;
        let mut socket = Self { listener, path: new, is_kept: false };
        prepare(&socket.listener).map_err(failed)?;
        // Anybody who gets into the directory may connect; who may do what is decided by the peer's credentials.
        fs::set_permissions(&socket.path, Permissions::from_mode(0o666)).map_err(failed)?;
        fs::hard_link(&socket.path, &path).map_err(failed)?;
        let new = std::mem::replace(&mut socket.path, path.clone());
        fs::remove_file(&new).map_err(failed)?;
        Ok(socket)
    }

    /// The one that the program before this one in the same process has left. Clients that have connected meanwhile are in it.
    pub(crate) fn left(path: PathBuf, listener: OwnedFd, is_kept: bool) -> Self {
        Self { listener: listener.into(), path, is_kept }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => cleanup::failed(None, self.path.display(), e),
            _ => {}
        }
    }
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
        std::thread::sleep(LOOK);
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
    fn what_a_killed_start_has_left_is_replaced_and_what_is_no_socket_stays() {
        let dir = TempDir::new();
        let path = dir.join("shmd.sock");
        // It was killed between the two names.
        drop(UnixListener::bind(dir.join(NEW)).unwrap());
        fs::hard_link(dir.join(NEW), &path).unwrap();
        drop(Socket::bind(path.clone()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "somebody's").unwrap();
        let refused = Socket::bind(path.clone()).unwrap_err().to_string();
        assert!(refused.contains(path.to_str().unwrap()) && refused.contains("exists"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
