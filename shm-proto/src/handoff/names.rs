//! The names of the three objects of a handoff channel.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::handoff::error::BadObjectName;
use crate::name::{ChannelName, Prefix};

/// `/dev/shm` file names have at most 255 bytes; a semaphore's has `sem.` before it.
const MAX_LEN: usize = 250;

/// The names of segment and semaphores for `shm_open` and `sem_open`: one slash at the start, and no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Names {
    /// The segment.
    pub segment: String,
    /// The semaphore that the writer posts.
    pub avail: String,
    /// The semaphore that the reader posts.
    pub done: String,
}

impl Names {
    /// Checks three names.
    ///
    /// # Errors
    /// [`BadObjectName`] for a name that the C library would refuse, or if two objects would have one name.
    pub fn new(segment: &str, avail: &str, done: &str) -> Result<Self, BadObjectName> {
        check("segment", segment)?;
        check("semaphore", avail)?;
        check("semaphore", done)?;
        if avail == done {
            let reason = "avail and done need names of their own".to_owned();
            return Err(bad("semaphore", done, reason));
        }
        // All three are files in one directory; the C library puts "sem." before a semaphore's name.
        for semaphore in [avail, done] {
            if segment.strip_prefix("/sem.") == semaphore.strip_prefix('/') {
                let reason = format!("it is where semaphore {semaphore} lies");
                return Err(bad("segment", segment, reason));
            }
        }
        Ok(Self { segment: segment.to_owned(), avail: avail.to_owned(), done: done.to_owned() })
    }

    /// The default names of a channel's objects: `/PREFIX.NAME`, and the same with `.avail` and `.done`.
    #[must_use]
    pub fn of_channel(prefix: &Prefix, channel: &ChannelName) -> Self {
        let segment = prefix.segment_name(channel);
        Self { avail: format!("{segment}.avail"), done: format!("{segment}.done"), segment }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (avail {}, done {})", self.segment, self.avail, self.done)
    }
}

fn bad(what: &'static str, name: &str, reason: String) -> BadObjectName {
    BadObjectName { what, input: name.to_owned(), reason }
}

fn check(what: &'static str, name: &str) -> Result<(), BadObjectName> {
    let rest = name.strip_prefix('/');
    let reason = match rest {
        None => "it does not start with a slash".to_owned(),
        Some("") => "nothing follows the slash".to_owned(),
        Some("." | "..") => "it is a directory".to_owned(),
        Some(rest) if rest.len() > MAX_LEN => format!("it has {} bytes, at most {MAX_LEN} are allowed", rest.len()),
        Some(rest) => match rest.chars().find(|c| *c == '/' || c.is_control()) {
            Some(c) => format!("it contains {c:?}"),
            None => return Ok(()),
        },
    };
    Err(bad(what, name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_c_library_takes_are_taken() {
        let names = Names::new("/demo_shm", "/sem_avail", "/sem_done").unwrap();
        assert_eq!(names.to_string(), "/demo_shm (avail /sem_avail, done /sem_done)");
    }

    #[test]
    fn a_refused_name_says_why() {
        for (segment, avail, done, why) in [
            ("demo", "/a", "/b", "slash"),
            ("/", "/a", "/b", "nothing"),
            ("/a/b", "/a", "/b", "'/'"),
            ("/..", "/a", "/b", "directory"),
            ("/s", "/a\n", "/b", "'\\n'"),
            ("/s", "/a", &*format!("/{}", "x".repeat(251)), "251 bytes"),
            ("/s", "/a", "/a", "own"),
            ("/sem.b", "/a", "/b", "semaphore /b"),
        ] {
            let message = Names::new(segment, avail, done).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn a_channels_objects_are_named_after_prefix_and_channel() {
        let names = Names::of_channel(&"shmd-7".parse().unwrap(), &"cam".parse().unwrap());
        assert_eq!(names.to_string(), "/shmd-7.cam (avail /shmd-7.cam.avail, done /shmd-7.cam.done)");
    }
}
