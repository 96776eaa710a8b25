//! Whether a file that has nothing more to read is followed on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use shm_proto::internal::os::file_id::FileId;

use super::Followed;

/// What to do about a file that has nothing more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Wait for it to grow.
    Stay,
    /// Begin the file again.
    Rewind,
    /// Read it to its end, and look for another one.
    Leave,
}

/// What the system says about the file that is followed.
#[derive(Clone, Copy, Debug)]
struct Here {
    id: FileId,
    at: u64,
    len: u64,
    names: u64,
}

/// `named` is the file that has the name now, with its length.
fn turn(here: Here, named: Option<(FileId, u64)>) -> Turn {
    match named {
        _ if here.len < here.at => Turn::Rewind,
        Some((id, _)) if id == here.id => Turn::Stay,
        Some((_, len)) if len > 0 => Turn::Leave,
        _ if here.names == 0 => Turn::Leave,
        // Renamed: whoever writes may not have opened the new one.
        _ => Turn::Stay,
    }
}

/// What to do, by what the system says now.
pub(super) fn look(followed: &Followed, path: &Path) -> Turn {
    // If the system does not say it, reading fails, too, or it says it the next time.
    let Ok(open) = followed.file.metadata() else { return Turn::Stay };
    let here = Here { id: followed.id, at: followed.at, len: open.len(), names: open.nlink() };
    turn(here, fs::metadata(path).ok().map(|named| (FileId::from(&named), named.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn a_file_is_left_when_it_has_a_successor_with_content_or_no_name_at_all() {
        let dir = TempDir::new();
        let [old, new] = ["old", "new"].map(|name| {
            let path = dir.path().join(name);
            fs::write(&path, "x").unwrap();
            FileId::at(path).unwrap()
        });
        let here = |len, names| Here { id: old, at: 10, len, names };
        for (len, names, named, expected) in [
            (10, 1, Some((old, 10)), Turn::Stay),
            (12, 1, Some((old, 12)), Turn::Stay),
            (9, 1, Some((old, 9)), Turn::Rewind),
            (0, 1, Some((old, 0)), Turn::Rewind),
            (10, 1, None, Turn::Stay),
            (10, 0, None, Turn::Leave),
            (10, 1, Some((new, 0)), Turn::Stay),
            (10, 0, Some((new, 0)), Turn::Leave),
            (10, 1, Some((new, 1)), Turn::Leave),
        ] {
            assert_eq!(turn(here(len, names), named), expected, "{len} {names} {named:?}");
        }
    }
}
