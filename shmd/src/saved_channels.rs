//! Channels that were made at run time, a file for each, for the daemon that comes after this one.
//!
//! | directory | channels | a file goes |
//! |---|---|---|
//! | `shmd.channels` in the runtime directory | those that are not kept | with its channel, and at the daemon's stop. A crash, a reexec and a failed start leave it |
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

/// The directory in the runtime directory, which is the daemon's own: all that is in it goes at a stop.
const VOLATILE: &str = "shmd.channels";
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
    volatile: Shelf,
    kept: Option<Shelf>,
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
        let volatile = Shelf { dir: runtime_dir.join(VOLATILE), outlives: Outlives::Daemon };
        let kept = state_dir.map(|dir| Shelf { dir: dir.join(prefix.as_str()), outlives: Outlives::Machine });
        Self { volatile, kept, is_ready: false }
    }

    /// Where the file of a channel goes that is kept, or of one that is not.
    ///
    /// # Errors
    /// That nothing can be kept, and why.
    pub(crate) fn shelf(&self, kept: bool) -> Result<&Shelf, String> {
        let shelf = if kept { self.kept.as_ref() } else { Some(&self.volatile) };
        shelf.ok_or_else(|| {
            "the daemon has no directory for channels that outlive it; leave --keep out, or the administrator of the daemon can \
             name a directory (state_dir in shmd.toml)"
                .to_owned()
        })
    }

    /// Everything that is there, in the order in which it was made.
    pub(crate) fn found(&self) -> Vec<Found> {
        let mut found = self.volatile.found();
        found.extend(self.kept.iter().flat_map(Shelf::found));
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
        if self.is_ready {
            self.volatile.clear();
        }
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
        let way = match self.outlives {
            Outlives::Daemon => "",
            Outlives::Machine => ", or leave --keep out",
        };
        let failed =
            |e: io::Error| format!("its file in {} cannot be written: {e}; mend that{way}", self.dir.display());
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

    /// Removes everything, and the directory.
    fn clear(&self) {
        let failed = |path: &Path, e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {}
            _ => cleanup::failed(None, path.display(), e),
        };
        let dir = match self.open() {
            Ok(dir) => dir,
            Err(e) => return failed(&self.dir, e),
        };
        for name in self.names() {
            private_file::remove(&dir, &name).unwrap_or_else(|e| failed(&self.dir.join(&name), e.into()));
        }
        fs::remove_dir(&self.dir).unwrap_or_else(|e| failed(&self.dir, e));
    }

    fn names(&self) -> impl Iterator<Item = String> {
        fs::read_dir(&self.dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
    }

    /// That the file of a channel, if there is one, is of a channel that this user has created: one that the daemon could not make
    /// again at its start.
    ///
    /// # Errors
    /// Whose channel it is, and what to do.
    pub(crate) fn check_creator(&self, channel: &ChannelName, uid: u32) -> Result<(), String> {
        // Writing fails, too, and says why.
        let Ok(dir) = self.open() else { return Ok(()) };
        let name = file_name(channel);
        let whose = match self.read(&dir, &name) {
            Ok(None) => return Ok(()),
            Ok(Some((_, created))) if created.uid == uid => return Ok(()),
            Ok(Some((_, created))) => format!("user {} has created it", created.user),
            Err(reason) => format!("its file is not valid ({reason})"),
        };
        Err(format!(
            "{whose}, and the daemon could not make it again at its start; choose another name, or the administrator of the daemon \
             can remove {}",
            self.dir.join(name).display()
        ))
    }

    fn found(&self) -> Vec<Found> {
        let dir = match self.open() {
            Ok(dir) => dir,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(e) => return vec![Found { path: self.dir.clone(), channel: Err(e.to_string()) }],
        };
        let look = |name: String| {
            let channel = self.read(&dir, &name).and_then(|found| Ok(found.ok_or("it has just been removed")?));
            Found { path: self.dir.join(name), channel }
        };
        self.names().filter(|name| name.ends_with(END)).map(look).collect()
    }

    fn read(&self, dir: &OwnedFd, name: &str) -> Result<Option<(ChannelName, Created)>, String> {
        let Some(bytes) = private_file::read(dir, name, MOST)? else { return Ok(None) };
        let text = str::from_utf8(&bytes).map_err(|e| e.to_string())?;
        let saved: Saved = toml::from_str(text).map_err(|e| e.to_string().trim().replace('\n', ", "))?;
        let Saved { v, channel, uid, user, time_ms, boot: made_in, keys } = saved;
        let kept = self.outlives == Outlives::Machine;
        if v != VERSION {
            return Err(format!("its format has version {v}, this program's has {VERSION}"));
        }
        if file_name(&channel) != name {
            return Err(format!("it is about channel {channel}"));
        }
        if !kept && made_in != boot()? {
            return Err("it is of another boot, and was not to be kept".to_owned());
        }
        Ok(Some((channel, Created { uid, user, time_ms, kept, keys })))
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        let dir: File = OpenOptions::new().read(true).custom_flags(flags).open(&self.dir)?;
        let found = dir.metadata()?;
        let (owner, mode, own) = (found.uid(), found.mode() & 0o7777, geteuid());
        if owner != own.as_raw() || mode & 0o022 != 0 {
            return Err(io::Error::other(format!(
                "the directory belongs to user {owner} and has mode {mode:04o}; it must belong to user {own}, and nobody else may \
                 write to it"
            )));
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use shm_test_support::TempDir;

    /// With all that a format for files may stumble over.
    const TEXT: &str = "\n\na\r\n\t\"b\" \\ \u{0}\u{1b}\u{7f}\r'''\"\"\" \u{e9}\u{2028}\n";

    fn created(time_ms: u64, kept: bool) -> Created {
        let keys = [("max", "1MiB"), ("schema_text", TEXT)].map(|(key, text)| (key.to_owned(), text.to_owned()));
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
            let saved = place(&dir);
            let shelves = [false, true].map(|kept| saved.shelf(kept).unwrap());
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
    fn a_channel_that_is_kept_is_its_creators_also_if_it_could_not_be_made_again() {
        let dir = TempDir::new();
        let saved = place(&dir);
        let shelf = saved.shelf(true).unwrap();
        shelf.check_creator(&name("a"), 8).unwrap();
        shelf.save(&name("a"), &created(1, true)).unwrap();
        shelf.check_creator(&name("a"), 7).unwrap();
        shelf.check_creator(&name("b"), 8).unwrap();
        let path = dir.path().join("a/state/p/a.toml");
        for reason in ["user me has created it", "its file is not valid (TOML parse error"] {
            let refused = shelf.check_creator(&name("a"), 8).unwrap_err();
            assert!(refused.starts_with(reason) && refused.contains(path.to_str().unwrap()), "{refused}");
            fs::write(&path, "nonsense").unwrap();
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
