//! Programs run as somebody else.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use super::place::Place;
use super::process::clean;

/// A user by number; there need not be an entry for it anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// A command that this user runs, with no other groups. The program is put where everybody can reach it.
    pub(crate) fn command(self, place: &Place, program: &Path) -> Command {
        let mut command = clean("setpriv");
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.gid)).arg("--clear-groups");
        command.arg("--").arg(reachable(place, program));
        command
    }
}

fn reachable(place: &Place, program: &Path) -> PathBuf {
    let Some(name) = program.file_name().filter(|_| program.is_absolute()) else { return program.to_owned() };
    let dir = place.path("bin");
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

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Says that a test is left out and why, past the test program's capturing of output.
pub(crate) fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// True, and said, when programs cannot be run as another user here.
pub(crate) fn skip_without_root(test: &str) -> bool {
    let works = is_root() && clean(OsStr::new("setpriv")).arg("--version").output().is_ok_and(|o| o.status.success());
    if !works {
        skip(test, "it runs programs as another user, which needs root and setpriv");
    }
    !works
}
