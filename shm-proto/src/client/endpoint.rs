//! Where the daemon is: the same rules for the daemon and for its clients.

use std::env;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;

use crate::duration;
use crate::name::Prefix;
use crate::ring::content::Expected;

/// The control socket's file name in the runtime directory.
pub const SOCKET_NAME: &str = "shmd.sock";
/// The lock file's name in the runtime directory.
pub const LOCK_NAME: &str = "shmd.lock";
/// The runtime directory of the system's daemon.
pub const SYSTEM_RUNTIME_DIR: &str = "/run/shmd";
/// The environment variable that names the runtime directory.
pub const RUNTIME_DIR_VARIABLE: &str = "SHMD_RUNTIME_DIR";

/// The environment variable that says how long a program waits for the daemon that replaces one that died.
pub const PATIENCE_VARIABLE: &str = "SHMD_PATIENCE";
/// How long that is without the variable: a service manager that restarts the daemon again and again has given up by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// The address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The control socket.
    pub socket: PathBuf,
    patience: Duration,
    expected: Option<Expected>,
}

impl Endpoint {
    /// Where a client looks: `runtime_dir` if given, else `SHMD_RUNTIME_DIR`, else the user's own daemon if it has a
    /// socket, else the system's if that has one, else where the user's own would be.
    #[must_use]
    pub fn find(runtime_dir: Option<&Path>) -> Self {
        let named = runtime_dir.map(Path::to_owned).or_else(|| variable(RUNTIME_DIR_VARIABLE));
        Self::choose(named, default_runtime_dir(), |dir| is_ours_or_roots(dir) && is_socket(&dir.join(SOCKET_NAME)))
    }

    /// The daemon whose runtime directory this is.
    #[must_use]
    pub fn in_dir(runtime_dir: &Path) -> Self {
        Endpoint { socket: runtime_dir.join(SOCKET_NAME), patience: default_patience(), expected: None }
    }

    /// How long an attached program waits for a daemon to come in the place of one that died, before it is told that the daemon is
    /// gone. Without this call `SHMD_PATIENCE` says it (such as `5s`), and without that it is 30 s.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Endpoint { patience, ..self }
    }

    /// See [`with_patience`](Self::with_patience).
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Attaches only to channels whose configuration declares this content: a reader or writer of any other channel is refused, with
    /// both names. `None` admits every channel again.
    ///
    /// ```no_run
    /// use shm_proto::{Endpoint, Expected, Reader, Start};
    /// let daemon = Endpoint::find(None).expecting(Expected::new("protobuf", Some("telemetry.Frame"))?);
    /// let reader = Reader::attach(&daemon, Some("telemetry"), Start::New)?;
    /// # Ok::<(), shm_proto::Error>(())
    /// ```
    #[must_use]
    pub fn expecting(self, expected: impl Into<Option<Expected>>) -> Self {
        Endpoint { expected: expected.into(), ..self }
    }

    /// See [`expecting`](Self::expecting).
    #[must_use]
    pub fn expected(&self) -> Option<&Expected> {
        self.expected.as_ref()
    }

    fn choose(named: Option<PathBuf>, own: PathBuf, serves: impl Fn(&Path) -> bool) -> Self {
        let system = Path::new(SYSTEM_RUNTIME_DIR);
        Self::in_dir(&match named {
            Some(dir) => dir,
            None if !serves(&own) && serves(system) => system.to_owned(),
            None => own,
        })
    }
}

/// The runtime directory of a daemon that this user starts and names none: `/run/shmd` for root, else
/// `$XDG_RUNTIME_DIR/shmd`, else `/tmp/shmd-UID`.
#[must_use]
pub fn default_runtime_dir() -> PathBuf {
    default_dir_of(Uid::effective().as_raw(), variable("XDG_RUNTIME_DIR"))
}

/// The prefix of the shared memory objects of a daemon that this user starts and names none: `shmd` for root, else
/// `shmd-UID`.
#[must_use]
pub fn default_prefix() -> Prefix {
    default_prefix_of(Uid::effective().as_raw())
}

fn default_patience() -> Duration {
    let named = env::var(PATIENCE_VARIABLE).ok();
    named.and_then(|text| duration::parse(&text).ok()).unwrap_or(PATIENCE)
}

fn default_dir_of(uid: u32, xdg: Option<PathBuf>) -> PathBuf {
    match xdg {
        _ if uid == 0 => SYSTEM_RUNTIME_DIR.into(),
        Some(dir) if dir.is_absolute() => dir.join("shmd"),
        _ => format!("/tmp/shmd-{uid}").into(),
    }
}

fn default_prefix_of(uid: u32) -> Prefix {
    let name = if uid == 0 { "shmd".to_owned() } else { format!("shmd-{uid}") };
    name.parse().unwrap_or_else(|_| unreachable!("{name:?} is made of letters, a dash and digits"))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

/// Below `/tmp` anybody may put up a directory of any name and answer from it.
fn is_ours_or_roots(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|meta| {
        meta.is_dir()
            && (meta.uid() == 0 || meta.uid() == Uid::effective().as_raw() || dir == Path::new(SYSTEM_RUNTIME_DIR))
            && meta.permissions().mode() & 0o002 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(named: Option<&str>, serving: &[&str]) -> String {
        let found = Endpoint::choose(named.map(Into::into), "/run/user/7/shmd".into(), |dir| {
            serving.iter().any(|s| Path::new(s) == dir)
        });
        found.socket.display().to_string()
    }

    #[test]
    fn a_named_directory_is_taken_whether_it_serves_or_not() {
        assert_eq!(chosen(Some("/x"), &["/run/shmd", "/run/user/7/shmd"]), "/x/shmd.sock");
    }

    #[test]
    fn the_users_own_daemon_comes_before_the_systems() {
        assert_eq!(chosen(None, &["/run/shmd", "/run/user/7/shmd"]), "/run/user/7/shmd/shmd.sock");
        assert_eq!(chosen(None, &["/run/shmd"]), "/run/shmd/shmd.sock");
    }

    #[test]
    fn with_no_daemon_at_all_the_place_named_is_where_the_users_own_would_be() {
        assert_eq!(chosen(None, &[]), "/run/user/7/shmd/shmd.sock");
    }

    #[test]
    fn the_default_directory_depends_on_the_user_and_the_session() {
        let dir = |uid, xdg: Option<&str>| default_dir_of(uid, xdg.map(Into::into)).display().to_string();
        assert_eq!(dir(0, Some("/run/user/0")), "/run/shmd");
        assert_eq!(dir(7, Some("/run/user/7")), "/run/user/7/shmd");
        assert_eq!(dir(7, Some("relative")), "/tmp/shmd-7");
        assert_eq!(dir(7, None), "/tmp/shmd-7");
    }

    #[test]
    fn the_default_prefix_tells_users_apart() {
        assert_eq!(default_prefix_of(0).as_str(), "shmd");
        assert_eq!(default_prefix_of(1000).as_str(), "shmd-1000");
    }
}
