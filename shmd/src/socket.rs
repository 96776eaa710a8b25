//! The control socket in the runtime directory.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::sys::socket::{Backlog, listen};
use shm_proto::{Error, Result};

use crate::cleanup;
use crate::operation_log::{LogEvent, operation};

/// Connections that may wait to be accepted. They are accepted in their order, so this is how many a client may find before
/// it: with the system's limit, 4096 by default, two clients that connect, ask and hang up in a loop would keep the others
/// waiting for a second. Who finds the queue full waits in `connect`.
const BACKLOG: i32 = 128;

/// The control socket; its name is removed when dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Nonblocking.
    pub(crate) listener: UnixListener,
    /// Its name.
    pub(crate) path: PathBuf,
}

impl Socket {
    /// Listens. A socket that is there already is a dead daemon's: the lock is ours.
    ///
    /// # Errors
    /// When the name is taken by something else, too long, or not to be made.
    pub(crate) fn bind(path: PathBuf) -> Result<Self> {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(&path)
                .map_err(|e| Error::system(format!("remove the stale socket {}", path.display()), e))?;
            operation(LogEvent::Replace).text("socket", path.display()).reason("its daemon has ended").warn();
        }
        let listener = UnixListener::bind(&path)
            .map_err(|e| Error::system(format!("listen on the control socket {}", path.display()), e))?;
        let socket = Self { listener, path };
        let failed = |e| Error::system(format!("prepare the control socket {}", socket.path.display()), e);
        socket.listener.set_nonblocking(true).map_err(failed)?;
        Backlog::new(BACKLOG).and_then(|backlog| listen(&socket.listener, backlog)).map_err(|e| failed(e.into()))?;
        // Anybody who gets into the directory may connect; who may do what is decided by the peer's credentials.
        fs::set_permissions(&socket.path, Permissions::from_mode(0o666)).map_err(failed)?;
        Ok(socket)
    }
}

impl Socket {
    /// The one that the program before this one in the same process has left. Clients that have connected meanwhile are in it.
    pub(crate) fn left(path: PathBuf, listener: OwnedFd) -> Self {
        Self { listener: listener.into(), path }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => cleanup::failed(None, self.path.display(), e),
            _ => {}
        }
    }
}
