//! The operation log's file in the runtime directory: what a crash of the daemon leaves of the log.
//!
//! ```text
//! {"v":1,"pid":4711}                      the daemon that writes it
//! {"seq":1,"time_ms":1764150000000,...}   an entry per line, as in an answer to `log`
//! ```
//!
//! A full file is replaced: the newest entries are written to another file, which is renamed. Nothing is ever synced:
//! the file outlives the daemon and not the machine.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::fstatat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use serde::{Deserialize, Serialize};
use shm_proto::internal::control::log::LogEntry;
use shm_proto::internal::os::file_id::FileId;

use super::{Kept, after};
use crate::private_file::{self, Outlives};

/// The file, and one that was not as a daemon writes it.
pub(crate) const NAME: &str = "shmd.operations";
const ASIDE: &str = "shmd.operations.bad";
/// The format's version.
const VERSION: u32 = 1;
/// A file that would become longer than this is replaced by one with as many of the newest bytes.
const MOST: u64 = 2 << 20;
const KEPT: usize = 1 << 20;
/// A file that could not be written is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
/// A number that no daemon reaches.
const NO_NUMBER: u64 = 1 << 62;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    v: u32,
    pid: u32,
}

/// What a daemon that died has left.
#[derive(Debug)]
pub(super) struct Left {
    /// That daemon.
    pub(super) pid: u32,
    /// Oldest first.
    pub(super) entries: Vec<LogEntry>,
    /// It died while it wrote one more.
    pub(super) is_torn: bool,
}

/// The file of this daemon, open.
#[derive(Debug)]
pub(super) struct LogFile {
    dir: OwnedFd,
    file: File,
    bytes: u64,
    /// The number of the newest entry in it.
    saved: u64,
    failed: Option<Instant>,
}

/// What is wrong with a file of the name, or what it says.
pub(super) fn read(dir: &OwnedFd) -> Result<Option<Left>, String> {
    private_file::read(dir, NAME, MOST + KEPT as u64)?.map(|bytes| parse(&bytes)).transpose()
}

/// Checks every line: what cannot have been written by a daemon makes all of it worthless, but for an unfinished last line.
fn parse(bytes: &[u8]) -> Result<Left, String> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let is_torn = lines.pop().is_some_and(|rest| !rest.is_empty());
    let mut lines = lines.into_iter();
    let head = lines.next().ok_or("it has no first line")?;
    let Head { v, pid } = serde_json::from_slice(head).map_err(|e| format!("its first line: {e}"))?;
    if v != VERSION {
        return Err(format!("its format has version {v}, this program's has {VERSION}"));
    }
    let mut entries: Vec<LogEntry> = Vec::new();
    for (number, line) in lines.enumerate() {
        let entry: LogEntry = serde_json::from_slice(line).map_err(|e| format!("line {}: {e}", number + 2))?;
        let last = entries.last().map_or(0, |last| last.seq);
        if !(last + 1..NO_NUMBER).contains(&entry.seq) {
            return Err(format!("line {}: number {} follows number {last}", number + 2, entry.seq));
        }
        entries.push(entry);
    }
    Ok(Left { pid, entries, is_torn })
}

/// Moves a file that is not trusted out of the way, to be looked at. The name that it has then.
pub(super) fn set_aside(dir: &OwnedFd) -> Result<&'static str, Errno> {
    renameat(dir, NAME, dir, ASIDE)?;
    Ok(ASIDE)
}

/// Whether writing to a file in this directory waits for no disk.
pub(super) fn is_in_memory(dir: &OwnedFd) -> bool {
    fstatfs(dir).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

impl LogFile {
    /// Begins a file with all present entries, which replaces the old file.
    pub(super) fn create(dir: OwnedFd) -> io::Result<Self> {
        let (file, bytes, saved) = write_anew(&dir)?;
        Ok(Self { dir, file, bytes, saved, failed: None })
    }

    /// Adds the entries that are new. After a failure nothing is tried for a while.
    pub(super) fn catch_up(&mut self, now: Instant) -> io::Result<()> {
        let new = after(self.saved);
        let waits = self.failed.is_some_and(|at| now.saturating_duration_since(at) < RETRY);
        let (Some(last), false) = (new.last(), waits) else { return Ok(()) };
        let lines = lines(&new);
        let is_full = self.bytes + lines.len() as u64 > MOST;
        let written = if is_full || self.failed.is_some() {
            write_anew(&self.dir).map(|anew| (self.file, self.bytes, self.saved) = anew)
        } else {
            self.file.write_all_at(lines.as_bytes(), self.bytes).map(|()| {
                (self.bytes, self.saved) = (self.bytes + lines.len() as u64, last.seq);
            })
        };
        self.failed = written.is_err().then_some(now);
        written
    }

    /// Removes the file, and one that was set aside. Another file under the name stays.
    pub(super) fn remove(self) -> Result<(), Errno> {
        let named = fstatat(&self.dir, NAME, AtFlags::AT_SYMLINK_NOFOLLOW);
        if named.is_ok_and(|named| Ok(FileId::from(&named)) == FileId::of(&self.file)) {
            private_file::remove(&self.dir, NAME)?;
        }
        private_file::remove(&self.dir, ASIDE)
    }
}

fn lines(entries: &[Arc<Kept>]) -> String {
    entries.iter().flat_map(|entry| [entry.json(), "\n"]).collect()
}

/// A file with the newest entries takes the place of the one before. Its bytes, and the number of its last entry.
fn write_anew(dir: &OwnedFd) -> io::Result<(File, u64, u64)> {
    let entries = after(0);
    let mut bytes = 0;
    let fits = |entry: &&Arc<Kept>| {
        bytes += entry.json().len() + 1;
        bytes <= KEPT
    };
    let count = entries.iter().rev().take_while(fits).count();
    let head = serde_json::to_string(&Head { v: VERSION, pid: std::process::id() })?;
    let text = head + "\n" + &lines(&entries[entries.len() - count..]);
    let file = private_file::replace(dir, NAME, text.as_bytes(), Outlives::Daemon)?;
    Ok((file, text.len() as u64, entries.last().map_or(0, |entry| entry.seq)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::operation_log::{LogEvent, operation};
    use shm_test_support::TempDir;

    const HEAD: &str = "{\"v\":1,\"pid\":7}\n";

    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq},\"time_ms\":5,\"severity\":\"info\",\"event\":\"reload\",\"fields\":{{\"a\":1}}}}\n")
    }

    #[test]
    fn what_a_daemon_has_written_is_read_up_to_where_it_died() {
        let left = |text: &str| parse(text.as_bytes()).unwrap();
        let two = format!("{HEAD}{}{}", line(3), line(9));
        let whole = left(&two);
        assert_eq!((whole.pid, whole.is_torn), (7, false));
        assert_eq!(whole.entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 9]);
        assert_eq!(whole.entries[0].to_string(), "event=reload a=1");
        for cut in HEAD.len()..two.len() {
            let torn = left(&two[..cut]);
            let lines = two[..cut].matches('\n').count() - 1;
            assert_eq!((torn.entries.len(), torn.is_torn), (lines, !two[..cut].ends_with('\n')), "{cut}");
        }
    }

    #[test]
    fn what_no_daemon_has_written_is_told_from_it() {
        let fault = |text: &[u8]| parse(text).unwrap_err();
        for text in ["", "x", "x\n", "{\"v\":1}\n", "[]\n"] {
            assert!(fault(text.as_bytes()).contains("first line"), "{text}");
        }
        assert!(fault(b"{\"v\":2,\"pid\":7}\n").contains("version 2"));
        for (lines, reason) in [
            (line(3) + &line(3), "line 3: number 3 follows number 3"),
            (line(0), "line 2: number 0 follows number 0"),
            (line(u64::MAX), "follows number 0"),
            ("\n".to_owned(), "line 2: "),
            ("[".repeat(100_000) + "\n", "line 2: "),
            (line(1).replace("\"a\":1", "\"a\":{}"), "line 2: "),
            ("\0".repeat(4096) + "\n" + &line(1), "line 2: "),
        ] {
            let found = fault((HEAD.to_owned() + &lines).as_bytes());
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn a_file_that_another_could_have_put_there_is_not_read_and_set_aside() {
        let dir = TempDir::new();
        let open = || OwnedFd::from(File::open(dir.path()).unwrap());
        let path = dir.path().join(NAME);
        assert!(read(&open()).unwrap().is_none());
        fs::write(&path, HEAD).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&open()).unwrap().unwrap().pid, 7);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(read(&open()).unwrap_err(), "its mode is 0620, a daemon makes it 0600");
        assert_eq!(set_aside(&open()).unwrap(), ASIDE);
        assert!(read(&open()).unwrap().is_none());
        File::create(&path).unwrap().set_len(MOST * 2).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(&open()).unwrap_err().contains("4194304 bytes"));
    }

    #[test]
    fn the_file_has_what_was_told_stays_bounded_and_goes() {
        let dir = TempDir::new();
        let open = || OwnedFd::from(File::open(dir.path()).unwrap());
        let mut file = LogFile::create(open()).unwrap();
        let text = "x".repeat(10_000);
        for n in 0..500u32 {
            operation(LogEvent::Kept).number("file-test", n).text("text", &text).info();
            file.catch_up(Instant::now()).unwrap();
            assert!(fs::metadata(dir.path().join(NAME)).unwrap().len() <= MOST);
        }
        let left = read(&open()).unwrap().unwrap();
        assert_eq!((left.pid, left.is_torn), (std::process::id(), false));
        // Other tests tell something at the same time.
        let mine = |entry: &&LogEntry| entry.fields.get("file-test").is_some();
        let newest = left.entries.iter().rfind(mine).unwrap();
        assert!(newest.to_string().starts_with("event=kept file-test=499 text=xxx"));
        assert!(left.entries.iter().filter(mine).count() >= 100);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(ASIDE), "").unwrap();
        file.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
