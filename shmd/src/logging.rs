//! The log: standard error, a line an event.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsFd;

use env_logger::{Builder, WriteStyle};
use log::LevelFilter;
use nix::sys::stat::fstat;

/// Starts the log. The journal adds its own times, so it gets none from here, and no colour.
pub(crate) fn start(level: LevelFilter) {
    let mut builder = Builder::new();
    builder.filter_level(level).target(env_logger::Target::Stderr);
    if is_journal(std::env::var_os("JOURNAL_STREAM").as_deref(), std::io::stderr()) {
        builder.write_style(WriteStyle::Never);
        builder.format(|out, record| writeln!(out, "{:<5} {}", record.level(), record.args()));
    } else {
        builder.format_timestamp_millis().format_target(false);
    }
    // A second start would keep the first log, which is as good.
    let _ = builder.try_init();
}

/// Whether `fd` is the stream that `JOURNAL_STREAM` names as `device:inode`: the variable is inherited by programs whose
/// standard error goes elsewhere.
fn is_journal(stream: Option<&OsStr>, fd: impl AsFd) -> bool {
    let named = stream.and_then(OsStr::to_str).and_then(|text| text.split_once(':'));
    let Some((Ok(device), Ok(inode))) = named.map(|(device, inode)| (device.parse(), inode.parse())) else {
        return false;
    };
    fstat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_systemd_names_is_the_journal() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let stat = fstat(&file).unwrap();
        let named = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(Some(named.as_ref()), &file));
        for other in [None, Some("1:2"), Some("journal"), Some("")] {
            assert!(!is_journal(other.map(OsStr::new), &file), "{other:?}");
        }
    }
}
