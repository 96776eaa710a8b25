//! `--daemonize`: the old way into the background. For a service manager stay in the foreground instead.
//!
//! The `daemonize` crate does the forking and no more. Its parent would report success when the child failed, and before
//! the child is ready; so the child says through a pipe what became of it, and the parent ends with that.
//!
//! ```text
//! parent:  fork -> wait for the verdict -> print it -> end with its exit code
//! child:   setsid, fork, standard streams to /dev/null -> start -> ready or failed -> verdict
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use daemonize::{Daemonize, Outcome};
use shm_proto::Error;

use crate::cleanup;
use crate::exit::{self, Failure, Verdict};

/// How to be in the background. Paths are absolute.
#[derive(Clone, Debug)]
pub(crate) struct Background {
    /// Working directory.
    pub(crate) dir: PathBuf,
    /// Permission bits to remove from new files.
    pub(crate) umask: u32,
}

/// Which side of the fork this is.
#[derive(Debug)]
pub(crate) enum Side {
    /// The one who was called; the daemon has become what the verdict says.
    Parent(Verdict),
    /// The daemon.
    Child(Herald),
}

/// Tells the parent the verdict, once.
#[derive(Debug)]
pub(crate) struct Herald(PipeWriter);

impl Herald {
    /// Ready, or the exit code and the reason.
    pub(crate) fn tell(mut self, code: u8, message: &str) {
        // A parent that was killed needs no word.
        let _ = self.0.write_all(&[code]).and_then(|()| self.0.write_all(message.as_bytes()));
    }
}

/// Forks. There must be no other thread yet.
///
/// # Errors
/// When the system refuses; on the parent's side only.
pub(crate) fn enter(how: &Background) -> Result<Side, Failure> {
    // The crate would say no more than that it failed.
    fs::metadata(&how.dir).map_err(|e| Error::system(format!("change to directory {}", how.dir.display()), e))?;
    let (reader, writer) = io::pipe()?;
    let fork = Daemonize::new().working_directory(&how.dir).umask(how.umask).execute();
    match fork {
        Outcome::Parent(Ok(_)) => {
            drop(writer);
            Ok(Side::Parent(listen(reader)))
        }
        Outcome::Parent(Err(e)) => Err(in_background(how, e)),
        Outcome::Child(Ok(_)) => Ok(Side::Child(Herald(writer))),
        Outcome::Child(Err(e)) => {
            let failure = in_background(how, e);
            Herald(writer).tell(exit::code(&failure), &failure.to_string());
            Err(failure)
        }
    }
}

fn in_background(how: &Background, e: impl std::fmt::Display) -> Failure {
    let (dir, umask) = (how.dir.display(), how.umask);
    let way = "may the daemon's user enter that directory, and start another process (ulimit -u)?";
    Failure::Io(io::Error::other(format!(
        "go into the background, in directory {dir} with umask {umask:03o}: {e}; {way} Without --daemonize the daemon \
         stays in the foreground"
    )))
}

fn listen(mut from: PipeReader) -> Verdict {
    let mut said = Vec::new();
    let heard = from.read_to_end(&mut said);
    match (heard, said.split_first()) {
        (Ok(_), Some((&code, message))) => Verdict { code, message: String::from_utf8_lossy(message).into_owned() },
        _ => Verdict { code: 1, message: "the daemon ended before it was ready and gave no reason".to_owned() },
    }
}

/// A file with this process's number, removed when dropped.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    /// Writes it. One that is there is a dead daemon's: that the living one is alone is ensured by the lock.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(path: &Path) -> Result<Self, Failure> {
        let failed = |e| Error::system(format!("write the pid file {}", path.display()), e);
        // Whoever reads it never sees half of it.
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let _ = fs::remove_file(&new);
        let text = format!("{}\n", std::process::id());
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new).map_err(failed)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, path));
        written.inspect_err(|_| drop(fs::remove_file(&new))).map_err(failed)?;
        Ok(Self { path: path.to_owned(), text })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another's in its place stays.
        if fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
            && let Err(e) = fs::remove_file(&self.path)
        {
            cleanup::failed(None, self.path.display(), e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn a_verdict_is_what_was_told_and_silence_is_a_failure() {
        let (reader, writer) = io::pipe().unwrap();
        Herald(writer).tell(78, "shmd.toml:3: no");
        let verdict = listen(reader);
        assert_eq!((verdict.code, verdict.message.as_str()), (78, "shmd.toml:3: no"));
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert_eq!(listen(reader).code, 1);
    }

    #[test]
    fn a_pid_file_holds_the_number_and_goes_with_its_owner_alone() {
        let dir = TempDir::new();
        let path = dir.path().join("shmd.pid");
        fs::write(&path, "1\n").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "2\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
        assert!(PidFile::write(Path::new("/nonexistent/pid")).unwrap_err().to_string().contains("/nonexistent/pid"));
    }
}
