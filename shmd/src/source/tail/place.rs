//! Where a tail goes on after the daemon's death: what it notes, and how the place is found again.
//!
//! The note says where in the file the next message begins, and how many messages the channel had then. It is written before
//! anything behind that place is published, so the channel's own numbers say how many messages behind the place are published.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use nix::fcntl::OFlag;
use shm_proto::Result;
use shm_proto::internal::framing::Pump;
use shm_proto::internal::ring::SourceNote;

use super::{Followed, open_with};
use crate::hash::fnv;
use crate::source::Cutting;
use shm_proto::internal::os::file_id::FileId;

/// Why a file is begun anew.
pub(super) const CUT: &str = "the file was cut";
/// The file is looked for among as many names of its directory.
const NAMES: usize = 10_000;
/// The parts of [`SourceNote::cutting`]: a message is being passed over; how messages are cut; the configured path.
const PASSING: u64 = 1;
const FRAMING: u64 = 0xffff_fffe;
const PATH: u64 = !0 << 32;

/// The place of the next message in a file.
pub(super) fn note(followed: &Followed, pump: &Pump, path: &Path, cutting: Cutting) -> SourceNote {
    let at = followed.at.saturating_sub(pump.unfinished() as u64);
    note_at(Some(followed), at, pump.is_passing_over(), path, cutting)
}

/// The same for a place; without a file it is waited for.
pub(super) fn note_at(
    file: Option<&Followed>,
    offset: u64,
    is_passing: bool,
    path: &Path,
    cutting: Cutting,
) -> SourceNote {
    let cutting = manner(path, cutting) | if is_passing { PASSING } else { 0 };
    let note = SourceNote { cutting, ..SourceNote::default() };
    let Some(Followed { id, born_ns, .. }) = file else { return note };
    SourceNote { device: id.device, inode: id.inode, born_ns: *born_ns, offset, ..note }
}

fn manner(path: &Path, cutting: Cutting) -> u64 {
    let framing = format!("{} {}", cutting.framing, cutting.keep_delimiter);
    (fnv(path.as_os_str().as_bytes()) & PATH) | (fnv(framing.as_bytes()) & FRAMING)
}

/// When a file was made, 0 if the file system does not tell.
pub(super) fn born_ns(file: &fs::Metadata) -> u64 {
    let born = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    born.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}

/// How a tail begins.
#[derive(Debug)]
pub(super) enum Begin {
    /// At the end of the file.
    Fresh,
    /// Where the next message of a daemon that died began.
    Noted { note: SourceNote, is_passing: bool, counts: bool },
    /// At the beginning of the file: the one that was being read is gone, or was cut.
    Anew(&'static str),
}

/// The file to go on with, and how, by the note about the file that was followed. `named` is the file that has the name now, at
/// its beginning.
///
/// # Errors
/// When the kernel does not tell the length of an open file.
pub(super) fn find(
    note: SourceNote,
    path: &Path,
    cutting: Cutting,
    named: Option<Followed>,
) -> Result<(Option<Followed>, Begin)> {
    let now = manner(path, cutting);
    if note == SourceNote::default() || (note.cutting ^ now) & PATH != 0 {
        return Ok((named, Begin::Fresh));
    }
    if note.inode == 0 {
        return Ok((named, Begin::Anew("the file was not there before")));
    }
    let is_it =
        |file: &Followed| file.id == FileId { device: note.device, inode: note.inode } && file.born_ns == note.born_ns;
    let found = match named {
        Some(file) if is_it(&file) => file,
        named => match renamed(path, &note).filter(is_it) {
            Some(file) => file,
            None => return Ok((named, Begin::Anew("the file that was followed is gone"))),
        },
    };
    let len = found.file.metadata().map_err(|e| super::failed(path, e))?.len();
    if len < note.offset {
        return Ok((Some(found), Begin::Anew(CUT)));
    }
    let counts = (note.cutting ^ now) & FRAMING == 0;
    let begin = Begin::Noted { note, is_passing: counts && note.cutting & PASSING != 0, counts };
    Ok((Some(Followed { at: note.offset, ..found }), begin))
}

/// Looks for the file under another name, as log rotation leaves it.
fn renamed(path: &Path, note: &SourceNote) -> Option<Followed> {
    use std::os::unix::fs::DirEntryExt;
    let names = fs::read_dir(path.parent()?).ok()?.take(NAMES).flatten();
    let mut same = names.filter(|name| name.ino() == note.inode);
    same.find_map(|name| open_with(&name.path(), OFlag::O_NOFOLLOW).ok()?)
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::framing::Framing;

    use super::*;
    use crate::source::tail::open;
    use shm_test_support::TempDir;

    const LINES: Cutting = Cutting { framing: Framing::Lines, keep_delimiter: false, max_message: 100, flush: None };

    fn noted(path: &Path, at: u64) -> SourceNote {
        let mut file = open(path).unwrap().unwrap();
        file.at = at;
        note(&file, &LINES.pump().unwrap(), path, LINES)
    }

    fn begin(note: SourceNote, path: &Path, cutting: Cutting) -> (Option<u64>, Begin) {
        let (file, begin) = find(note, path, cutting, open(path).unwrap()).unwrap();
        (file.map(|file| file.at), begin)
    }

    #[test]
    fn the_place_is_found_in_the_file_by_whatever_name() {
        let dir = TempDir::new();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        fs::write(&path, "one\ntwo\n").unwrap();
        let note = noted(&path, 4);
        let is_at = |(at, begin): (Option<u64>, Begin)| match begin {
            Begin::Noted { is_passing: false, counts: true, .. } => at,
            other => panic!("{other:?}"),
        };
        assert_eq!(is_at(begin(note, &path, LINES)), Some(4));
        fs::rename(&path, &old).unwrap();
        assert_eq!(is_at(begin(note, &path, LINES)), Some(4));
        fs::write(&path, "three\n").unwrap();
        let (file, _) = find(note, &path, LINES, open(&path).unwrap()).unwrap();
        assert_eq!(FileId::of(&file.unwrap().file).unwrap(), FileId::at(&old).unwrap());
        fs::remove_file(&old).unwrap();
        assert!(matches!(begin(note, &path, LINES), (Some(0), Begin::Anew(why)) if why.contains("gone")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(begin(note, &path, LINES), (None, Begin::Anew(_))));
    }

    #[test]
    fn a_file_that_was_cut_is_read_anew_and_another_path_from_its_end() {
        let dir = TempDir::new();
        let (path, other) = (dir.path().join("log"), dir.path().join("other"));
        fs::write(&path, "one\ntwo\n").unwrap();
        let note = noted(&path, 8);
        fs::write(&path, "x\n").unwrap();
        assert!(matches!(begin(note, &path, LINES), (Some(0), Begin::Anew(why)) if why.contains("cut")));
        fs::rename(&path, &other).unwrap();
        assert!(matches!(begin(note, &other, LINES), (Some(0), Begin::Fresh)));
        assert!(matches!(begin(SourceNote::default(), &other, LINES), (Some(0), Begin::Fresh)));
        let awaited = note_at(None, 0, false, &other, LINES);
        assert!(matches!(begin(awaited, &other, LINES), (Some(0), Begin::Anew(why)) if why.contains("not there")));
        fs::rename(&other, &path).unwrap();
        let place = SourceNote { offset: 1, cutting: note.cutting | PASSING, ..note };
        assert!(matches!(begin(place, &path, LINES), (Some(1), Begin::Noted { is_passing: true, counts: true, .. })));
        // Nobody knows how many messages there are when they are cut otherwise.
        let nul = Cutting { framing: Framing::Nul, ..LINES };
        assert!(matches!(begin(place, &path, nul), (Some(1), Begin::Noted { is_passing: false, counts: false, .. })));
        // The number was given to another file.
        let reused = SourceNote { born_ns: note.born_ns ^ 1, ..place };
        assert!(matches!(begin(reused, &path, LINES), (Some(0), Begin::Anew(_))));
    }
}
