//! Keeping the operation log in its file, for the daemon that starts after a crash.
//!
//! If the file is in memory (tmpfs, as under systemd), the thread that logs an entry writes it at once. A disk may make a
//! writer wait, so there a thread does it, a moment later.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::errno::Errno;

use super::file::{self, Left, LogFile, NAME};
use super::{LogEvent, Severity, operation, ring};
use crate::{handover, threads};

/// Who writes new entries to the file.
#[derive(Debug)]
enum By {
    Nobody,
    Teller,
    /// A thread, at a word.
    Thread(SyncSender<()>),
}

static BY: Mutex<By> = Mutex::new(By::Nobody);
static FILE: Mutex<Option<LogFile>> = Mutex::new(None);

fn by() -> MutexGuard<'static, By> {
    BY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file() -> MutexGuard<'static, Option<LogFile>> {
    FILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something was told.
pub(super) fn told() {
    match &*by() {
        By::Nobody => return,
        By::Thread(word) => {
            // If there is a word that the thread has not taken, it will see this entry, too.
            let _ = word.try_send(());
            return;
        }
        By::Teller => {}
    }
    save();
}

fn save() {
    let saved = file().as_mut().map_or(Ok(()), |file| file.catch_up(Instant::now()));
    if let Err(e) = saved {
        operation(LogEvent::LogUnsaved).reason(format_args!("{e}; it is tried again from time to time")).warn();
    }
}

/// The log is in a file as long as this lives.
#[derive(Debug)]
pub(crate) struct Saved {
    path: PathBuf,
    /// The file stays: this daemon has not become ready, and the one before it died.
    stays: bool,
    /// Told when the file cannot be removed.
    left: fn(&Path, Errno),
}

/// Goes on with the log that a dead daemon has left in the runtime directory `dir`, whose path is `path`, and keeps it there from
/// now on. What is wrong with the file is told and stops nobody. `left` is told when the file cannot be removed at the end.
pub(crate) fn save_in(dir: OwnedFd, path: &Path, left: fn(&Path, Errno)) -> Saved {
    let stays = match file::read(&dir) {
        Ok(None) => false,
        Ok(Some(left)) => {
            take_over(left);
            true
        }
        Err(reason) => {
            set_aside(&dir, &reason);
            false
        }
    };
    let is_in_memory = file::is_in_memory(&dir);
    match LogFile::create(dir) {
        Ok(created) => {
            *file() = Some(created);
            *by() = if is_in_memory { By::Teller } else { by_thread() };
            // What was told between these lines.
            told();
        }
        Err(e) => operation(LogEvent::LogUnsaved).reason(e).warn(),
    }
    Saved { path: path.join(NAME), stays, left }
}

fn by_thread() -> By {
    let (word, words) = mpsc::sync_channel(1);
    // Ends when the other end is gone.
    let work = move || words.into_iter().for_each(|()| save());
    match threads::spawn("operations", work) {
        Ok(_) => By::Thread(word),
        Err(_) => By::Teller,
    }
}

/// Writes what was told to the file before this returns, whoever else would do it.
pub(crate) fn settle() {
    save();
}

fn take_over(left: Left) {
    let Left { pid, entries, is_torn } = left;
    if let Some((version, by)) = handover::before().filter(|_| pid == std::process::id()) {
        let entry = operation(LogEvent::Reexec).number("pid", pid).text("old", version);
        let entry = entry.text("new", env!("CARGO_PKG_VERSION")).text("by", by).entry(Severity::Info);
        log::info!("{entry}");
        return ring().restore(entries, entry);
    }
    let died = operation(LogEvent::Died).number("pid", pid).number("entries", entries.len());
    let died = if is_torn { died.text("unfinished", "the last entry") } else { died };
    let reason =
        format!("that daemon ended without being stopped; this one, pid {}, takes its place", std::process::id());
    let died = died.reason(reason).entry(Severity::Warn);
    log::warn!("{died}");
    ring().restore(entries, died);
}

fn set_aside(dir: &OwnedFd, reason: &str) {
    let entry = operation(LogEvent::Replace).text("file", NAME);
    let entry = match file::set_aside(dir) {
        Ok(aside) => entry.text("kept_as", aside),
        Err(e) => entry.text("not_kept", e),
    };
    entry.reason(format_args!("the operation log of a daemon that died cannot be trusted: {reason}")).warn();
}

impl Saved {
    /// The daemon is ready: its end is told apart from its death by the file, which goes then.
    pub(crate) fn is_ready(&mut self) {
        self.stays = false;
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        *by() = By::Nobody;
        let file = file().take();
        if !self.stays
            && let Some(Err(e)) = file.map(LogFile::remove)
        {
            (self.left)(&self.path, e);
        }
    }
}
