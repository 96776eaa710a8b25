//! When a recording goes on in another file, and what the files are called.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shm_proto::Bytes;

/// Digits in the name of a part.
const DIGITS: usize = 5;

/// One limit of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Size(u64),
    Time(Duration),
}

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || format!("{text:?} is neither a size nor a time: write 1GiB or 500MiB, or 10min, 90s or 2h");
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let limit = match &text[number.len()..] {
            // A size in bytes, or seconds? Mebibytes, or minutes?
            "" | "m" | "M" => return Err(told()),
            "min" => {
                shm_proto::internal::duration::parse(&format!("{number}m")).map(Limit::Time).map_err(|_| told())?
            }
            _ => match text.parse::<Bytes>() {
                Ok(size) => Limit::Size(size.get()),
                Err(_) => shm_proto::internal::duration::parse(text).map(Limit::Time).map_err(|_| told())?,
            },
        };
        match limit {
            Limit::Size(size) if size < Bytes::MIB => Err(format!("{text:?} is too small: parts have at least 1MiB")),
            Limit::Time(time) if time < Duration::from_secs(1) => Err(format!("{text:?} is too short: at least 1s")),
            limit => Ok(limit),
        }
    }
}

/// All limits of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) size: Option<u64>,
    pub(crate) time: Option<Duration>,
}

impl Split {
    /// If there are several limits of a kind, the least one counts.
    pub(crate) fn new(limits: &[Limit]) -> Self {
        let mut split = Split::default();
        for limit in limits {
            match *limit {
                Limit::Size(size) => split.size = Some(split.size.map_or(size, |other| other.min(size))),
                Limit::Time(time) => split.time = Some(split.time.map_or(time, |other| other.min(time))),
            }
        }
        split
    }

    /// Whether there are parts.
    pub(crate) fn is_wanted(&self) -> bool {
        self.size.is_some() || self.time.is_some()
    }

    /// Whether a part of `len` bytes and this age ends before another `more` bytes.
    pub(crate) fn is_due(&self, len: u64, more: u64, age: Duration) -> bool {
        self.size.is_some_and(|size| len.saturating_add(more) > size) || self.time.is_some_and(|time| age >= time)
    }
}

/// The names of the files.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    output: PathBuf,
    in_parts: bool,
}

impl Names {
    pub(crate) fn new(output: &Path, split: &Split) -> Self {
        Names { output: output.to_owned(), in_parts: split.is_wanted() }
    }

    /// The name of a part, from 1 on: `run.mcap` is `run-00001.mcap`.
    pub(crate) fn part(&self, number: u32) -> PathBuf {
        if !self.in_parts {
            return self.output.clone();
        }
        let mut name = OsString::from(self.output.file_stem().unwrap_or_default());
        name.push(format!("-{number:0DIGITS$}"));
        if let Some(ending) = self.output.extension() {
            name.push(".");
            name.push(ending);
        }
        self.output.with_file_name(name)
    }

    /// A file of an earlier recording that this one would meet.
    pub(crate) fn in_the_way(&self) -> Option<PathBuf> {
        if !self.in_parts {
            return self.output.symlink_metadata().is_ok().then(|| self.output.clone());
        }
        let parent = self.output.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        let entries = directory.read_dir().ok()?.filter_map(Result::ok);
        entries.map(|entry| self.output.with_file_name(entry.file_name())).find(|path| self.is_part(path))
    }

    fn is_part(&self, path: &Path) -> bool {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let number = stem.rsplit_once('-').map_or("", |(_, number)| number);
        number.len() >= DIGITS && number.parse().is_ok_and(|number| self.part(number) == path)
    }
}

#[cfg(test)]
mod tests {
    use shm_test_support::TempDir;

    use super::*;

    #[test]
    fn a_limit_is_a_size_or_a_time() {
        let time = |seconds| Ok(Limit::Time(Duration::from_secs(seconds)));
        for (text, limit) in [
            ("1GiB", Ok(Limit::Size(1 << 30))),
            ("500M", Err(())),
            ("2MB", Ok(Limit::Size(2 << 20))),
            ("10min", time(600)),
            ("90s", time(90)),
            ("2h", time(7200)),
            ("10m", Err(())),
            ("1000000", Err(())),
            ("4KiB", Err(())),
            ("1ms", Err(())),
            ("often", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(text.parse::<Limit>().map_err(drop), limit, "{text}");
        }
        assert!("10m".parse::<Limit>().unwrap_err().contains("10min"));
    }

    #[test]
    fn a_part_ends_at_the_first_limit() {
        let split = Split::new(&["1MiB", "10s", "2MiB"].map(|text| text.parse().unwrap()));
        assert!(split.is_wanted() && !Split::new(&[]).is_wanted());
        let mib = 1 << 20;
        for (len, more, age, due) in [(0, mib, 9, false), (1, mib, 9, true), (0, 0, 10, true), (mib, 0, 0, false)] {
            assert_eq!(split.is_due(len, more, Duration::from_secs(age)), due, "{len} {more} {age}");
        }
    }

    #[test]
    fn parts_are_numbered_before_the_ending() {
        let split = Split::new(&[Limit::Size(1 << 30)]);
        for (output, part) in
            [("run.mcap", "run-00007.mcap"), ("/x/a.b.mcap", "/x/a.b-00007.mcap"), ("dir/run", "dir/run-00007")]
        {
            assert_eq!(Names::new(Path::new(output), &split).part(7), Path::new(part));
            assert_eq!(Names::new(Path::new(output), &Split::default()).part(7), Path::new(output));
        }
    }

    #[test]
    fn parts_of_an_earlier_recording_are_in_the_way() {
        let dir = TempDir::new();
        let names = Names::new(&dir.join("run.mcap"), &Split::new(&[Limit::Size(1 << 30)]));
        for other in ["run.mcap", "run-1.mcap", "run-00001.txt", "other-00001.mcap", "run-0000x.mcap"] {
            std::fs::write(dir.join(other), "").unwrap();
        }
        assert_eq!(names.in_the_way(), None);
        std::fs::write(dir.join("run-00003.mcap"), "").unwrap();
        assert_eq!(names.in_the_way(), Some(dir.join("run-00003.mcap")));
        assert!(Names::new(&dir.join("run.mcap"), &Split::default()).in_the_way().is_some());
    }
}
