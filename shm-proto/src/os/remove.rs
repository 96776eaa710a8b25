//! Removing a name that may become another file's at the same moment.

use std::os::fd::AsFd;
use std::path::Path;
use std::{fs, io};

use nix::errno::Errno;

use super::file_id::FileId;
use super::random;

/// Removes the name `path` if it leads to the file that is open as `file`. Returns whether it did.
///
/// Between a look at a name and its removal, another process may give the name to another file. So the name is moved away first,
/// and then the moved file is looked at. If it is another file, it gets its name back at once.
///
/// # Errors
/// What the system says. The name is then unchanged.
pub fn remove_this(path: &Path, file: impl AsFd) -> io::Result<bool> {
    let this = FileId::of(&file)?;
    let leads_to_this = |path: &Path| -> io::Result<bool> { Ok(FileId::at(path)? == this) };
    let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    match leads_to_this(path) {
        Ok(true) => {}
        Ok(false) => return Ok(false),
        Err(e) if missing(&e) => return Ok(false),
        Err(e) => return Err(e),
    }
    // A sweep recognises this name if this process is killed now.
    let away = path.with_file_name(format!(".shmd-{:016x}.new", random::u64()));
    match fs::rename(path, &away) {
        Err(e) if missing(&e) => return Ok(false),
        moved => moved?,
    }
    let removed = leads_to_this(&away)?;
    if !removed {
        match fs::hard_link(&away, path) {
            // A third file has the name now.
            Err(e) if e.raw_os_error() == Some(Errno::EEXIST as i32) => {}
            put_back => put_back?,
        }
    }
    fs::remove_file(&away)?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn only_this_file_loses_its_name() {
        let dir = TempDir::new();
        let path = dir.join("x");
        let file = File::create(&path).unwrap();
        assert!(remove_this(&path, &file).unwrap());
        assert!(!remove_this(&path, &file).unwrap(), "there is none");
        fs::write(&path, "another").unwrap();
        assert!(!remove_this(&path, &file).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"another");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_takes_its_place_meanwhile_keeps_the_name() {
        let dir = TempDir::new();
        let path = dir.join("x");
        for _ in 0..200 {
            let stale = File::create(&path).unwrap();
            let won: Vec<bool> = std::thread::scope(|scope| {
                let racers: Vec<_> = (0..3)
                    .map(|_| {
                        scope.spawn(|| {
                            // As daemons do that all find it: one removes it, and puts its own in its place.
                            let removed = remove_this(&path, &stale).unwrap();
                            removed && File::create_new(&path).is_ok()
                        })
                    })
                    .collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).collect()
            });
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
            assert!(path.exists());
            fs::remove_file(&path).unwrap();
        }
    }
}
