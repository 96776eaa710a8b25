//! Channels that were made at run time, a file for each, for the daemon that comes after this one.
//!
//! | directory | channels | a file goes |
//! |---|---|---|
//! | `channels` in the runtime directory | those that are not kept | with its channel, and at the daemon's stop. A crash, a reexec and a failed start leave it |
//! | `STATE_DIR/PREFIX` | those that are kept | with its channel |

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use shm_proto::internal::os::process::boot_id;
use shm_proto::{ChannelName, Prefix};

use crate::cleanup;
use crate::config::Created;
use crate::private_file::{self, Outlives};
use crate::threads;

/// The directory in the runtime directory.
const VOLATILE: &str = "channels";
/// How the file of a channel ends.
const END: &str = ".toml";
/// The format's version.
const VERSION: u32 = 1;
/// More than a request can hold, with every character written as an escape.
const MOST: u64 = 512 << 10;

/// What a file says.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    v: u32,
    channel: ChannelName,
    uid: u32,
    user: String,
    time_ms: u64,
    /// The boot that it was made in.
    boot: String,
    /// As in the configuration.
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

/// What was found of a channel at the start.
#[derive(Debug)]
pub(crate) struct Found {
    /// The file.
    pub(crate) path: PathBuf,
    /// The channel, or what is wrong with the file.
    pub(crate) channel: Result<(ChannelName, Created), String>,
}

/// The files.
#[derive(Debug)]
pub(crate) struct SavedChannels {
    volatile: PathBuf,
    kept: Option<PathBuf>,
    /// The daemon has become ready: its end is a stop.
    is_ready: bool,
}

/// The place of the files of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
    outlives: Outlives,
}

impl SavedChannels {
    /// Those of the daemon with this runtime directory, state directory and prefix.
    pub(crate) fn new(runtime_dir: &Path, state_dir: Option<&Path>, prefix: &Prefix) -> Self {
        let kept = state_dir.map(|dir| dir.join(prefix.as_str()));
        Self { volatile: runtime_dir.join(VOLATILE), kept, is_ready: false }
    }

    /// Where the file of a channel goes that is kept, or of one that is not.
    ///
    /// # Errors
    /// That nothing can be kept, and why.
    pub(crate) fn shelf(&self, kept: bool) -> Result<Shelf, String> {
        match (&self.kept, kept) {
            (_, false) => Ok(Shelf { dir: self.volatile.clone(), outlives: Outlives::Daemon }),
            (Some(dir), true) => Ok(Shelf { dir: dir.clone(), outlives: Outlives::Machine }),
            (None, true) => {
                Err("the daemon has no directory for what outlives it: its administrator can name one, state_dir in \
                                 shmd.toml; leave --keep out"
                    .to_owned())
            }
        }
    }

    /// Everything that is there, in the order in which it was made.
    pub(crate) fn found(&self) -> Vec<Found> {
        let shelves = [false, true].into_iter().filter_map(|kept| Some((self.shelf(kept).ok()?, kept)));
        let mut found: Vec<Found> = shelves.flat_map(|(shelf, kept)| shelf.found(kept)).collect();
        found.sort_by_key(|found| found.channel.as_ref().map_or(0, |(_, created)| created.time_ms));
        found
    }

    /// The daemon is ready: when it ends, what is not kept goes.
    pub(crate) fn is_ready(&mut self) {
        self.is_ready = true;
    }
}

impl Drop for SavedChannels {
    fn drop(&mut self) {
        if !self.is_ready {
            return;
        }
        let failed = |path: &Path, e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {}
            _ => cleanup::failed(None, path.display(), e),
        };
        for entry in fs::read_dir(&self.volatile).into_iter().flatten().flatten() {
            fs::remove_file(entry.path()).unwrap_or_else(|e| failed(&entry.path(), e));
        }
        fs::remove_dir(&self.volatile).unwrap_or_else(|e| failed(&self.volatile, e));
    }
}

impl Shelf {
    /// Writes the file of a channel. It may take as long as the disk takes.
    ///
    /// # Errors
    /// What cannot be written, and why.
    pub(crate) fn save(&self, channel: &ChannelName, created: &Created) -> Result<(), String> {
        let saved = Saved {
            v: VERSION,
            channel: channel.clone(),
            uid: created.uid,
            user: created.user.clone(),
            time_ms: created.time_ms,
            boot: boot()?,
            keys: created.keys.clone(),
        };
        let text = toml::to_string(&saved).map_err(|e| e.to_string())?;
        let failed = |e: io::Error| format!("its file in {} cannot be written: {e}", self.dir.display());
        let dir = self.open_or_make().map_err(failed)?;
        private_file::replace(&dir, &file_name(channel), text.as_bytes(), self.outlives).map_err(failed).map(drop)
    }

    /// Removes the file of a channel, if it is there.
    ///
    /// # Errors
    /// What cannot be removed, and why.
    pub(crate) fn remove(&self, channel: &ChannelName) -> Result<(), String> {
        let removed = match self.open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => Err(e),
            Ok(dir) => private_file::remove(&dir, &file_name(channel)).map(|()| dir).map_err(io::Error::from),
        };
        let dir = removed.map_err(|e| format!("its file in {} cannot be removed: {e}", self.dir.display()))?;
        if self.outlives == Outlives::Machine {
            // A disk may take its time, and the channels do not wait for it. Without a thread, the system writes it some day.
            let _ = threads::spawn("forget", move || {
                let _ = nix::unistd::fsync(&dir);
            });
        }
        Ok(())
    }

    fn found(&self, kept: bool) -> Vec<Found> {
        let dir = match self.open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
            dir => dir,
        };
        let names = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.ends_with(END));
        let look = |name: String| {
            let channel = match &dir {
                Ok(dir) => read(dir, &name, kept),
                Err(e) => Err(e.to_string()),
            };
            Found { path: self.dir.join(name), channel }
        };
        names.map(look).collect()
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        let dir: File = OpenOptions::new().read(true).custom_flags(flags).open(&self.dir)?;
        let found = dir.metadata()?;
        if found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
            let mode = found.mode() & 0o7777;
            return Err(io::Error::other(format!("it belongs to user {}, with mode {mode:04o}", found.uid())));
        }
        Ok(dir.into())
    }

    fn open_or_make(&self) -> io::Result<OwnedFd> {
        match self.open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // A state directory that a user's daemon is the first to need has parents that are missing, too.
                match DirBuilder::new().mode(0o700).recursive(self.outlives == Outlives::Machine).create(&self.dir) {
                    // Another channel's thread was faster.
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                    _ => self.open(),
                }
            }
            opened => opened,
        }
    }
}

fn file_name(channel: &ChannelName) -> String {
    format!("{channel}{END}")
}

fn boot() -> Result<String, String> {
    let [high, low] = boot_id().map_err(|e| e.to_string())?;
    Ok(format!("{high:016x}{low:016x}"))
}

fn read(dir: &OwnedFd, name: &str, kept: bool) -> Result<(ChannelName, Created), String> {
    let bytes = private_file::read(dir, name, MOST)?.ok_or("it has just been removed")?;
    let text = str::from_utf8(&bytes).map_err(|e| e.to_string())?;
    let saved: Saved = toml::from_str(text).map_err(|e| e.to_string().trim().replace('\n', ", "))?;
    let Saved { v, channel, uid, user, time_ms, boot: made_in, keys } = saved;
    if v != VERSION {
        return Err(format!("its format has version {v}, this program's has {VERSION}"));
    }
    if file_name(&channel) != name {
        return Err(format!("it is about channel {channel}"));
    }
    if !kept && made_in != boot()? {
        return Err("it is of another boot, and was not to be kept".to_owned());
    }
    Ok((channel, Created { uid, user, time_ms, kept, keys }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use shm_test_support::TempDir;

    fn created(time_ms: u64, kept: bool) -> Created {
        let keys =
            [("max", "1MiB"), ("schema_text", "a\n\"b\"\n")].map(|(key, text)| (key.to_owned(), text.to_owned()));
        Created { uid: 7, user: "me".to_owned(), time_ms, kept, keys: keys.into() }
    }

    fn place(dir: &TempDir) -> SavedChannels {
        SavedChannels::new(dir.path(), Some(&dir.path().join("a/state")), &"p".parse().unwrap())
    }

    fn name(text: &str) -> ChannelName {
        text.parse().unwrap()
    }

    fn channels(saved: &SavedChannels) -> Vec<(String, Created)> {
        saved.found().into_iter().map(|found| found.channel.unwrap()).map(|(name, by)| (name.to_string(), by)).collect()
    }

    #[test]
    fn what_was_saved_is_found_in_order_and_what_is_not_kept_goes_with_the_daemon() {
        let dir = TempDir::new();
        let mut saved = place(&dir);
        assert!(saved.found().is_empty());
        for (channel, time_ms, kept) in [("b", 3, true), ("a.toml", 2, false), ("c", 1, true)] {
            saved.shelf(kept).unwrap().save(&name(channel), &created(time_ms, kept)).unwrap();
        }
        let all = [("c", created(1, true)), ("a.toml", created(2, false)), ("b", created(3, true))];
        assert_eq!(channels(&saved), all.clone().map(|(name, by)| (name.to_owned(), by)));
        // A start that fails leaves everything to the next one.
        drop(saved);
        saved = place(&dir);
        assert_eq!(channels(&saved).len(), 3);
        saved.is_ready();
        drop(saved);
        assert!(!dir.path().join(VOLATILE).exists());
        let saved = place(&dir);
        assert_eq!(channels(&saved), [("c".to_owned(), created(1, true)), ("b".to_owned(), created(3, true))]);
        for channel in ["b", "c", "nobody"] {
            saved.shelf(true).unwrap().remove(&name(channel)).unwrap();
        }
        assert!(saved.found().is_empty());
    }

    #[test]
    fn without_a_directory_nothing_is_kept_and_it_is_said_what_to_do() {
        let dir = TempDir::new();
        let saved = SavedChannels::new(dir.path(), None, &"p".parse().unwrap());
        assert!(saved.shelf(true).unwrap_err().contains("state_dir"));
        saved.shelf(false).unwrap();
    }

    #[test]
    fn threads_that_find_no_directory_may_all_make_it() {
        for _ in 0..100 {
            let dir = TempDir::new();
            let shelves = [false, true].map(|kept| place(&dir).shelf(kept).unwrap());
            let barrier = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for (number, shelf) in shelves.iter().cycle().take(4).enumerate() {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        shelf.save(&name(&format!("c{number}")), &created(1, true)).unwrap();
                    });
                }
            });
        }
    }

    #[test]
    fn a_file_that_cannot_be_the_daemons_is_told_from_one_that_can() {
        let dir = TempDir::new();
        let saved = place(&dir);
        let shelf = saved.shelf(false).unwrap();
        shelf.save(&name("a"), &created(1, false)).unwrap();
        let path = dir.path().join(VOLATILE).join("a.toml");
        let good = fs::read_to_string(&path).unwrap();
        let fault = || saved.found().remove(0).channel.unwrap_err();
        for (text, reason) in [
            ("nonsense", "expected"),
            (&good.replace("v = 1", "v = 2"), "version 2"),
            (&good.replace("\"a\"", "\"b\""), "about channel b"),
            (&good.replace("uid = 7", "uid = -7"), "uid"),
            (&good.replace("boot = \"", "boot = \"0"), "another boot"),
        ] {
            fs::write(&path, text).unwrap();
            let fault = fault();
            assert!(fault.contains(reason) && !fault.contains('\n'), "{text}: {fault}");
        }
        fs::write(&path, &good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(fault().contains("0644"));
        fs::set_permissions(dir.path().join(VOLATILE), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(fault().contains("mode 0777"));
        assert!(shelf.save(&name("b"), &created(1, false)).unwrap_err().contains("mode 0777"));
    }
}
