//! Files in a directory that nobody but the daemon's user may write in. A file that another user could have put there is not read,
//! and a file is replaced as a whole.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// Reads a file of at most `limit` bytes. `None` if there is no file of this name.
///
/// # Errors
/// What is wrong with the file, in words.
pub(crate) fn read(dir: &OwnedFd, name: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ELOOP) => return Err("it is a symbolic link".to_owned()),
        Err(e) => return Err(e.to_string()),
    };
    let found = file.metadata().map_err(|e| e.to_string())?;
    let fault = if !found.is_file() {
        "it is not a regular file".to_owned()
    } else if found.uid() != geteuid().as_raw() {
        format!("it belongs to user {}", found.uid())
    } else if found.mode() & 0o077 != 0 {
        format!("its mode is {:04o}, a daemon makes it 0600", found.mode() & 0o7777)
    } else if found.nlink() != 1 {
        format!("it has {} names", found.nlink())
    } else if found.len() > limit {
        format!("it has {} bytes, a daemon writes at most {limit}", found.len())
    } else {
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        return Ok(Some(bytes));
    };
    Err(fault)
}

/// Whether the file outlives the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlives {
    /// The daemon only: nothing is synced.
    Daemon,
    /// The machine, too: the file is on the disk when this returns.
    Machine,
}

/// Writes a file under a name of its own, and gives it the name of the file that it replaces.
///
/// # Errors
/// What the system refused; the file before is still there.
pub(crate) fn replace(dir: &OwnedFd, name: &str, bytes: &[u8], outlives: Outlives) -> io::Result<File> {
    let new = format!("{name}.new");
    // Of a daemon that was killed while it wrote.
    remove(dir, &new)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, new.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let is_durable = outlives == Outlives::Machine;
    let written = file
        .write_all_at(bytes, 0)
        .and_then(|()| if is_durable { file.sync_all() } else { Ok(()) })
        .and_then(|()| Ok(renameat(dir, new.as_str(), dir, name)?))
        .and_then(|()| if is_durable { Ok(nix::unistd::fsync(dir)?) } else { Ok(()) });
    if let Err(e) = written {
        // The space may be what is missing.
        let _ = remove(dir, &new);
        return Err(e);
    }
    Ok(file)
}

/// Removes a file, if it is there.
///
/// # Errors
/// What the system refused.
pub(crate) fn remove(dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use shm_test_support::TempDir;

    const NAME: &str = "file";
    const LIMIT: u64 = 1000;

    fn open(dir: &TempDir) -> OwnedFd {
        OwnedFd::from(File::open(dir.path()).unwrap())
    }

    #[test]
    fn what_is_written_is_read_and_replaced_as_a_whole_and_goes() {
        let dir = TempDir::new();
        for (text, outlives) in [("first", Outlives::Daemon), ("second", Outlives::Machine)] {
            fs::write(dir.path().join("file.new"), "of a daemon that was killed").unwrap();
            replace(&open(&dir), NAME, text.as_bytes(), outlives).unwrap();
            assert_eq!(read(&open(&dir), NAME, LIMIT).unwrap().unwrap(), text.as_bytes());
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        for _ in 0..2 {
            remove(&open(&dir), NAME).unwrap();
            assert_eq!(read(&open(&dir), NAME, LIMIT), Ok(None));
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_everything_as_it_was() {
        let dir = TempDir::new();
        // Has no place under the name, when all is written.
        fs::create_dir(dir.path().join(NAME)).unwrap();
        replace(&open(&dir), NAME, b"text", Outlives::Machine).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&open(&dir), NAME).unwrap_err();
    }

    #[test]
    fn a_file_that_another_could_have_put_there_is_not_read() {
        let dir = TempDir::new();
        let path = dir.path().join(NAME);
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = || read(&open(&dir), NAME, LIMIT).unwrap_err();
        fs::write(&path, "text").unwrap();
        set_mode(0o620);
        assert_eq!(refused(), "its mode is 0620, a daemon makes it 0600");
        set_mode(0o600);
        assert_eq!(read(&open(&dir), NAME, LIMIT).unwrap().unwrap(), b"text");
        fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert_eq!(refused(), "it has 2 names");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("other"), &path).unwrap();
        assert_eq!(refused(), "it is a symbolic link");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(refused(), "it is not a regular file");
        fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(LIMIT + 1).unwrap();
        set_mode(0o600);
        assert_eq!(refused(), "it has 1001 bytes, a daemon writes at most 1000");
    }
}
