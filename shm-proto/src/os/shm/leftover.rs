//! Removes what daemons left that were killed while they started: blank objects with the names of channels, and temporary names.
//!
//! Objects that a process has open, and objects of other users, are not touched.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, OFlag, open as open_path};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat};
use nix::sys::uio::pread;
use nix::unistd::geteuid;

use super::unnamed::{BEFORE, is_temporary};
use super::{DIRECTORY, failed, leads_to, open, path, unlink};
use crate::error::Result;
use crate::os::file_lease::is_alone;
use crate::os::retry;

/// The part of an object that its maker writes first.
const HEADER: usize = 4096;
/// Bytes of a semaphore's file.
const SEMAPHORE: i64 = 32;

/// What is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A blank object of this user was there, and has been removed.
    Removed,
    /// A blank object of this user is there, and a process has it open, perhaps the one that made it.
    InUse,
    /// There is no object, or one that is not a leftover.
    None,
}

/// Removes the object `name` if it belongs to this user, is blank (empty, or its first page is zero), and no process has it open.
///
/// Objects that are made as [`Unnamed`](super::Unnamed) are never blank. This is for objects of programs that give an object
/// its name first and fill it afterwards, as earlier versions did.
///
/// # Errors
/// If the object cannot be removed, or the kernel does not tell whether a process has it open.
pub fn remove_blank(name: &str) -> Result<Leftover> {
    let file = match open_own(name)? {
        Opened::File(file) => file,
        Opened::Leased => return Ok(Leftover::InUse),
        Opened::None => return Ok(Leftover::None),
    };
    let mut header = [0; HEADER];
    let len = retry(|| pread(&file, &mut header, 0)).map_err(|error| failed("read", name, error))?;
    if header[..len].iter().any(|&byte| byte != 0) {
        return Ok(Leftover::None);
    }
    remove_unopened(name, &file)
}

/// Removes the temporary names of this user that no process uses, and returns them.
///
/// # Errors
/// If one of them cannot be removed. The others are removed all the same.
pub fn sweep() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let mut result = Ok(());
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let is_semaphore = is_temporary(&file_name, "sem.");
        if !is_semaphore && !is_temporary(&file_name, BEFORE) {
            continue;
        }
        let name = format!("/{file_name}");
        match remove_temporary(&name, is_semaphore) {
            Ok(Leftover::Removed) => removed.push(name),
            Ok(Leftover::InUse | Leftover::None) => {}
            Err(error) => result = Err(error),
        }
    }
    result.map(|()| removed)
}

fn remove_temporary(name: &str, is_semaphore: bool) -> Result<Leftover> {
    let Opened::File(file) = open_own(name)? else { return Ok(Leftover::None) };
    let stat = fstat(&file).map_err(|error| failed("look at", name, error))?;
    if is_semaphore && ![0, SEMAPHORE].contains(&stat.st_size) {
        return Ok(Leftover::None);
    }
    if stat.st_nlink > 1 {
        // The object has its own name already, so nobody needs the temporary name any more.
        return unlink(name).map(|()| Leftover::Removed);
    }
    remove_unopened(name, &file)
}

fn remove_unopened(name: &str, file: &OwnedFd) -> Result<Leftover> {
    if !is_alone(file)? {
        return Ok(Leftover::InUse);
    }
    // While this process holds the lease, no other process finds and removes the file, so the name keeps leading to it.
    if !leads_to(name, file) {
        return Ok(Leftover::None);
    }
    unlink(name).map(|()| Leftover::Removed)
}

enum Opened {
    File(OwnedFd),
    /// Another process is checking whether the file is in use.
    Leased,
    /// There is no such file, or it belongs to another user.
    None,
}

/// Opens a regular file of this user for reading and writing.
fn open_own(name: &str) -> Result<Opened> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let Ok(there) = retry(|| open_path(path(name).as_str(), flags, Mode::empty())) else { return Ok(Opened::None) };
    let stat = fstat(&there).map_err(|error| failed("look at", name, error))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFREG || stat.st_uid != geteuid().as_raw() {
        return Ok(Opened::None);
    }
    if stat.st_size == 0 && stat.st_mode & 0o7777 == 0 {
        // Its maker was killed before it set the mode.
        let link = format!("/proc/self/fd/{}", there.as_raw_fd());
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        retry(|| fchmodat(AT_FDCWD, link.as_str(), mode, FchmodatFlags::FollowSymlink))
            .map_err(|error| failed("set mode 0600 on", name, error))?;
    }
    match open(name, true) {
        Ok(file) if leads_to(name, &there) => Ok(Opened::File(file)),
        Ok(_) => Ok(Opened::None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Opened::Leased),
        Err(_) => Ok(Opened::None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use nix::sys::stat::umask;

    use super::*;
    use crate::os::shm::Unnamed;
    use crate::os::{random, reserve, shm};
    use shm_test_support::{Object, as_nobody, in_child, may_change_user, wait_until};

    /// What an earlier version that is killed in the middle leaves: made with mode 0, then with a mode, then with memory.
    fn blank(name: &str, mode: u32, len: u64) {
        let file = shm::create(name, mode, None).unwrap();
        if len > 0 {
            reserve::now(file.as_fd(), len).unwrap();
        }
    }

    #[test]
    fn blank_objects_that_nobody_has_open_are_removed() {
        let name = Object::new("blank");
        assert_eq!(remove_blank(&name.0).unwrap(), Leftover::None);
        for (mode, len) in [(0o000, 0), (0o640, 0), (0o640, 100), (0o600, 1 << 20)] {
            blank(&name.0, mode, len);
            wait_until("it is removed", || remove_blank(&name.0).unwrap() == Leftover::Removed);
            assert!(!shm::exists(&name.0).unwrap());
        }
    }

    #[test]
    fn an_ordinary_users_blank_object_without_a_mode_is_removed_too() {
        let name = Object::new("blank-mode");
        if may_change_user() {
            let code = as_nobody(|| {
                let removed = shm::create(&name.0, 0, None).and_then(|file| {
                    drop(file);
                    remove_blank(&name.0)
                });
                i32::from(!matches!(removed, Ok(Leftover::Removed)))
            });
            assert_eq!(code, 0);
        }
    }

    #[test]
    fn objects_in_use_with_contents_or_of_another_user_stay() {
        let name = Object::new("not-blank");
        let file = shm::create(&name.0, 0o600, None).unwrap();
        assert_eq!(remove_blank(&name.0).unwrap(), Leftover::InUse);
        reserve::now(file.as_fd(), 8192).unwrap();
        nix::sys::uio::pwrite(&file, b"x", 4000).unwrap();
        drop(file);
        assert_eq!(remove_blank(&name.0).unwrap(), Leftover::None);
        if may_change_user() {
            let other = Object::new("not-mine");
            blank(&other.0, 0o666, 0);
            let code = as_nobody(|| i32::from(!matches!(remove_blank(&other.0), Ok(Leftover::None))));
            assert_eq!(code, 0);
        }
        let link = Object::new("no-file");
        std::os::unix::fs::symlink("/dev/shm/nothing", link.path()).unwrap();
        assert_eq!(remove_blank(&link.0).unwrap(), Leftover::None);
    }

    #[test]
    fn one_of_many_that_find_it_removes_it() {
        let name = Object::new("blank-many");
        for _ in 0..20 {
            blank(&name.0, 0o600, 4096);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        wait_until("it is not in use", || remove_blank(&name.0).unwrap() != Leftover::InUse);
                    });
                }
            });
            assert!(!shm::exists(&name.0).unwrap());
        }
    }

    /// Temporary names as this and earlier versions make them.
    fn temporary(before: &str) -> Object {
        Object(format!("/{before}{:016x}.new", random::u64()))
    }

    #[test]
    fn temporary_names_go_unless_their_maker_lives() {
        let names = [temporary(BEFORE), temporary("sem."), temporary(BEFORE), temporary("sem."), temporary("sem.")];
        let [ours, semaphore, in_use, long, linked] = &names;
        blank(&ours.0, 0o600, 4096);
        blank(&semaphore.0, 0, 0);
        let _maker = shm::create(&in_use.0, 0o600, None).unwrap();
        blank(&long.0, 0o600, 33);
        let user = shm::create(&linked.0, 0o600, None).unwrap();
        let own = Object::new("sem-own-name");
        fs::hard_link(linked.path(), own.path()).unwrap();
        wait_until("what is left over is removed", || {
            sweep().unwrap();
            ![ours, semaphore, linked].iter().any(|name| shm::exists(&name.0).unwrap())
        });
        for (name, stays) in names.iter().zip([false, false, true, true, false]) {
            assert_eq!(shm::exists(&name.0).unwrap(), stays, "{}", name.0);
        }
        assert!(own.path().exists());
        drop(user);
    }

    #[test]
    fn names_of_another_kind_are_no_temporary_names() {
        for name in ["sem.0123456789abcdef.new", "sem.ffffffffffffffff.new"] {
            assert!(is_temporary(name, "sem."), "{name}");
        }
        for name in
            ["sem.0123456789abcde.new", "sem.0123456789abcdefg.new", "sem.0123456789abcdeF.new", "sem.x", "sem."]
        {
            assert!(!is_temporary(name, "sem."), "{name}");
        }
    }

    #[test]
    fn a_maker_that_is_killed_leaves_nothing_that_a_sweep_does_not_find() {
        let name = Object::new("killed-maker");
        let made = in_child(|| {
            umask(Mode::from_bits_truncate(0o777));
            let usual = Unnamed::create(&name.0, 0o600, None);
            let other = Unnamed::temporary(&name.0, 0o600);
            let code = i32::from(usual.is_err() || other.is_err());
            // As if it were killed now.
            std::mem::forget((usual, other));
            code
        });
        assert_eq!(made.exit_code(), 0);
        let left = || {
            fs::read_dir(DIRECTORY).unwrap().flatten().any(|entry| {
                let own = entry.metadata().is_ok_and(|found| found.uid() == geteuid().as_raw());
                own && is_temporary(&entry.file_name().to_string_lossy(), BEFORE)
            })
        };
        wait_until("nothing is left", || {
            sweep().unwrap();
            !left()
        });
        assert!(!shm::exists(&name.0).unwrap());
    }
}
