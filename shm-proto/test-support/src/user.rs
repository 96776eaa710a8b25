//! Programs run as another user.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::unistd::geteuid;

use crate::process::clean;

/// A user by number; there need not be an entry for it anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// User and group `nobody`.
pub const NOBODY: User = User { uid: 65534, gid: 65534 };

impl User {
    /// A command that this user runs, with no other groups. A program of the tests is put below `dir`, where everybody can reach
    /// it.
    pub fn command(self, dir: &Path, program: &Path) -> Command {
        let mut command = clean("setpriv");
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.gid)).arg("--clear-groups");
        command.arg("--").arg(reachable(dir, program));
        command
    }
}

/// A second thread at the same place would copy the program onto a link to itself, which empties it.
static ALONE: Mutex<()> = Mutex::new(());

fn reachable(dir: &Path, program: &Path) -> PathBuf {
    let Some(name) = program.file_name().filter(|_| program.is_absolute()) else { return program.to_owned() };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = dir.join("bin");
    if !dir.is_dir() {
        fs::DirBuilder::new().mode(0o755).create(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let copy = dir.join(name);
    if !copy.exists() {
        if fs::hard_link(program, &copy).is_err() {
            fs::copy(program, &copy).unwrap();
        }
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

/// Says that a test is left out and why, past the test runner's capturing of output.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Whether the test may become another user. If not, a note says so.
pub fn may_change_user() -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("skipped: only root can become another user");
    }
    root
}

/// Whether programs cannot be run as another user here. If so, a note says so.
pub fn skip_without_root(test: &str) -> bool {
    let works = geteuid().is_root() && clean("setpriv").arg("--version").output().is_ok_and(|o| o.status.success());
    if !works {
        skip(test, "it runs programs as another user, which needs root and setpriv");
    }
    !works
}
