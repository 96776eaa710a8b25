//! A file that another program reads at any moment: it is replaced as a whole, or not at all.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Failure, Result};

/// Others may read the file: node_exporter is another user.
const MODE: u32 = 0o644;

/// Writes the text to a new file in the same directory, and gives that file the name.
///
/// # Errors
/// That the path names no file, or what the system refuses.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let failed = |what: &str, e: io::Error| Failure::Other(format!("cannot {what} {}: {e}", path.display()));
    let Some(name) = path.file_name() else {
        return Err(Failure::Usage(format!(
            "the metrics cannot go to {}: this is not the name of a file",
            path.display()
        )));
    };
    // node_exporter reads only names that end in .prom.
    let new = path.with_file_name(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    let written = write(&new, text);
    let named = match written {
        Ok(()) => fs::rename(&new, path),
        Err(e) => {
            let _ = fs::remove_file(&new);
            return Err(failed("write a new file beside", e));
        }
    };
    named.map_err(|e| {
        let _ = fs::remove_file(&new);
        failed("replace", e)
    })
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let mut file = match options.open(path) {
        // A process of the same number was killed in the middle of this.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)?
        }
        file => file?,
    };
    // Whatever the umask of this process takes away.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use shm_test_support::TempDir;

    use super::*;

    #[test]
    fn the_file_is_replaced_and_nothing_else_is_left() {
        let dir = TempDir::new();
        let path = dir.join("shmd.prom");
        for text in ["shmd_up 1\n", "shmd_up 0\n"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o400, 0o400);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn everybody_may_read_the_file_whatever_may_be_read_of_the_old_one() {
        let dir = TempDir::new();
        let path = dir.join("relay.prom");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_the_old_one_stays() {
        let dir = TempDir::new();
        fs::create_dir(dir.join("shmd.prom")).unwrap();
        let refused = replace(&dir.join("shmd.prom"), "x").unwrap_err().to_string();
        assert!(refused.contains("replace") && refused.contains("shmd.prom"), "{refused}");
        let refused = replace(&dir.join("none/shmd.prom"), "x").unwrap_err().to_string();
        assert!(refused.contains("none/shmd.prom: No such file"), "{refused}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }
}
