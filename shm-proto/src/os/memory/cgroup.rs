//! The memory control groups of this process: its own, and all above it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{Free, MARGIN};
use crate::size::Bytes;

/// The version of control groups, which decides the names of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What the tightest of the groups leaves; `None` if no group has a limit.
pub(super) fn free() -> Option<Free> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    free_in(&find(&mounts, &groups))
}

fn free_in(directories: &[(PathBuf, Version)]) -> Option<Free> {
    let all = directories.iter().filter_map(|(directory, version)| free_of(directory, *version));
    all.min_by_key(|free| free.bytes)
}

/// The directories of the groups, from the innermost outwards.
fn find(mounts: &str, groups: &str) -> Vec<(PathBuf, Version)> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // 0::/system.slice/shmd.service, or 4:memory:/shmd
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => Version::Two,
            list if list.split(',').any(|controller| controller == "memory") => Version::One,
            _ => continue,
        };
        let Some((root, point)) = mounts.lines().find_map(|line| mount(line, version)) else { continue };
        // Groups above the mounted part cannot be looked at, for example in a container without a namespace of its own.
        let inside = Path::new(group).strip_prefix(&root).ok();
        let inside = inside.filter(|inside| inside.components().all(|part| part != Component::ParentDir));
        let directory: PathBuf = point.components().chain(inside.unwrap_or(Path::new("")).components()).collect();
        let above = directory.ancestors().take_while(|directory| directory.starts_with(&point));
        found.extend(above.map(|directory| (directory.to_owned(), version)));
    }
    found
}

/// Root and mount point from a line of `mountinfo`, if it is of the hierarchy that has the memory controller.
fn mount(line: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    // 36 35 98:0 /root /point rw,noatime master:1 - type source options
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let fits = match version {
        Version::Two => kind == "cgroup2",
        Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
    };
    // A blank in a path would be `\040`. No system mounts control groups at such a path.
    fits.then(|| (root.into(), point.into()))
}

fn free_of(directory: &Path, version: Version) -> Option<Free> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limits, usage, cache) = match version {
        // "max" is not a number and means no limit.
        Version::Two => (["memory.max", "memory.high"], "memory.current", ["active_file", "inactive_file"]),
        Version::One => (
            ["memory.limit_in_bytes", "memory.limit_in_bytes"],
            "memory.usage_in_bytes",
            ["total_active_file", "total_inactive_file"],
        ),
    };
    let limit = limits.into_iter().filter_map(number).min()?;
    // In version 1, a number of 63 bits means no limit.
    if limit > i64::MAX as u64 / 2 {
        return None;
    }
    let stat = read("memory.stat").unwrap_or_default();
    let counted = |name: &str| {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    let droppable: u64 = cache.into_iter().filter_map(counted).sum();
    let used = number(usage)?.saturating_sub(droppable);
    let place =
        format!("in memory control group {} (limit {}, in use {})", directory.display(), Bytes(limit), Bytes(used));
    Some(Free { bytes: limit.saturating_sub(used).saturating_sub(MARGIN), place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_test_support::TempDir;

    const UNIFIED: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
                           30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const SPLIT: &str = "31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                         32 24 0:28 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                         33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn paths(found: &[(PathBuf, Version)]) -> Vec<&str> {
        found.iter().map(|(path, _)| path.to_str().unwrap()).collect()
    }

    #[test]
    fn all_groups_above_this_process_are_looked_at() {
        let found = find(UNIFIED, "0::/system.slice/shmd.service\n");
        let group = "/sys/fs/cgroup/system.slice/shmd.service";
        assert_eq!(paths(&found), [group, "/sys/fs/cgroup/system.slice", "/sys/fs/cgroup"]);
        for group in ["0::/\n", "0::/../elsewhere\n"] {
            assert_eq!(paths(&find(UNIFIED, group)), ["/sys/fs/cgroup"]);
        }
        assert!(find("", "0::/\n").is_empty() && find(UNIFIED, "").is_empty() && find(UNIFIED, "x").is_empty());
    }

    #[test]
    fn the_first_version_is_found_too_and_what_is_not_mounted_is_left_out() {
        let found = find(SPLIT, "4:cpu,memory:/docker/1/a\n1:cpu:/b\n0::/\n");
        let memory = "/sys/fs/cgroup/memory";
        assert_eq!(paths(&found), ["/sys/fs/cgroup/memory/a", memory, "/sys/fs/cgroup/unified"]);
        assert_eq!((found[0].1, found[2].1), (Version::One, Version::Two));
        assert_eq!(paths(&find(SPLIT, "4:memory:/elsewhere\n")), [memory]);
    }

    /// Directories with files like a control group's.
    struct Groups(TempDir);

    impl Groups {
        fn new() -> Self {
            let dir = TempDir::new();
            fs::create_dir(dir.join("inner")).unwrap();
            Self(dir)
        }

        fn write(&self, group: &str, files: &[(&str, &str)]) {
            for (name, text) in files {
                fs::write(self.0.join(group).join(name), text).unwrap();
            }
        }

        fn free(&self, version: Version) -> Option<Free> {
            free_in(&[(self.0.join("inner"), version), (self.0.to_owned(), version)])
        }
    }

    #[test]
    fn the_tightest_group_counts_and_cache_is_free() {
        let groups = Groups::new();
        assert_eq!(groups.free(Version::Two), None);
        groups.write("", &[("memory.max", "max\n"), ("memory.high", "max\n"), ("memory.current", "1048576\n")]);
        assert_eq!(groups.free(Version::Two), None);
        groups.write("inner", &[("memory.max", "134217728\n"), ("memory.current", "52428800\n")]);
        let stat = "anon 1\nfile 40000000\nactive_file 4194304\ninactive_file 6291456\ninactive_file_x 1\n";
        groups.write("inner", &[("memory.stat", stat)]);
        let free = groups.free(Version::Two).unwrap();
        assert_eq!(free.bytes, (128 << 20) - (40 << 20) - MARGIN);
        assert!(free.to_string().ends_with("inner (limit 128MiB, in use 40MiB)"), "{free}");
        groups.write("", &[("memory.high", "16777216\n")]);
        assert_eq!(groups.free(Version::Two).unwrap().bytes, (15 << 20) - MARGIN);
        groups.write("", &[("memory.current", "20971520\n")]);
        assert_eq!(groups.free(Version::Two).unwrap().bytes, 0);
    }

    #[test]
    fn the_first_versions_largest_number_is_no_limit() {
        let groups = Groups::new();
        let usage = ("memory.usage_in_bytes", "1048576\n");
        groups.write("", &[("memory.limit_in_bytes", "9223372036854771712\n"), usage]);
        assert_eq!(groups.free(Version::One), None);
        groups.write("inner", &[("memory.limit_in_bytes", "67108864\n"), usage]);
        assert_eq!(groups.free(Version::One).unwrap().bytes, (63 << 20) - MARGIN);
    }
}
