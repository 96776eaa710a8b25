//! What the machine or the container lets the daemon have: memory, descriptors, objects that stay.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use shm_proto::internal::control::Pong;
use shm_proto::internal::control::stat::{ChannelStat, WriterRole};
use shm_proto::internal::os::process::user_name;

use super::finding::{Finding, Severity};
use super::site::Site;
use crate::human::{bytes, counted};

/// The size of `/dev/shm` in a container that was not given another.
const DOCKERS: u64 = 64 << 20;
/// Descriptors of the daemon for each reader.
const PER_READER: u64 = 5;
/// What the daemon has besides, roughly: itself, its channels, sources and writers.
const BESIDES: u64 = 64;
/// The smallest number of an ordinary user. `RemoveIPC=` spares the users below.
const FIRST_USER: u32 = 1000;

/// Room for the channels, in bytes and inodes.
#[derive(Clone, Copy, Debug)]
struct Room {
    size: u64,
    free: u64,
    /// Inodes in all and free; without a limit there are none in all.
    inodes: (u64, u64),
}

pub(super) fn memory(channels: &[ChannelStat]) -> Vec<Finding> {
    match statvfs("/dev/shm") {
        Ok(fs) => {
            let unit = fs.fragment_size();
            let (size, free) = (fs.blocks() * unit, fs.blocks_available() * unit);
            room(Room { size, free, inodes: (fs.files(), fs.files_free()) }, channels)
        }
        Err(e) => vec![Finding::new(
            Severity::Critical,
            "memory",
            format!("/dev/shm cannot be used: {e}"),
            "shared memory is kept there, and no file system is mounted there",
            "mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm",
        )],
    }
}

fn room(room: Room, channels: &[ChannelStat]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let max: u64 = channels.iter().map(|stat| stat.max).sum();
    let now: u64 = channels.iter().map(|stat| stat.memory).sum();
    let (size, free) = (bytes(room.size), bytes(room.free));
    // A file system without a limit has the size 0.
    if room.size > 0 && max > room.size {
        let is_dockers = room.size == DOCKERS;
        let cause = if is_dockers {
            "64MiB is what a container has whose starter asked for nothing else"
        } else {
            "channels that grow at the same time will not all get their memory"
        };
        // With a quarter to spare.
        let wanted = (max + max / 4).div_ceil(1 << 20);
        let command = if is_dockers {
            format!("docker run --shm-size={wanted}m ... (in Kubernetes: an emptyDir with medium: Memory at /dev/shm)")
        } else {
            format!("mount -o remount,size={wanted}m /dev/shm")
        };
        let sum = counted(channels.len() as u64, "channel", "s");
        let what = format!("/dev/shm has {size}, and the max of {sum} together is {}", bytes(max));
        findings.push(Finding::new(Severity::Warning, "memory", what, cause, command));
    }
    // What the channels may still grow by is what has to be free.
    let wanted = max.saturating_sub(now).min(room.size / 10);
    if room.size > 0 && room.free < wanted {
        findings.push(Finding::new(
            Severity::Warning,
            "memory",
            format!("/dev/shm has only {free} free of {size}"),
            format!("the channels seen here take {}, and the rest belongs to other programs", bytes(now)),
            "ls -lS /dev/shm",
        ));
    }
    if room.inodes.0 > 0 && room.inodes.1 == 0 {
        findings.push(Finding::new(
            Severity::Critical,
            "memory",
            format!("/dev/shm has no inode free of {}", room.inodes.0),
            "no channel can be created, however much memory is free",
            format!("mount -o remount,nr_inodes={} /dev/shm", room.inodes.0.saturating_mul(2)),
        ));
    }
    findings
}

/// Whether the daemon and the writers can have as many readers as are configured.
pub(super) fn descriptors(daemon: &Pong, channels: &[ChannelStat], site: &Site) -> Vec<Finding> {
    let limit_of = |pid: u32| open_files(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?);
    let mut findings = Vec::new();
    let readers: u64 = channels.iter().map(|stat| u64::from(stat.max_readers)).sum();
    let needed = readers * PER_READER + BESIDES;
    if let Some(limit) = limit_of(daemon.pid).filter(|limit| *limit < needed) {
        findings.push(Finding::new(
            Severity::Warning,
            "descriptors",
            format!(
                "the daemon (pid {}) may open {limit} descriptors, and needs about {needed} for {readers} readers",
                daemon.pid
            ),
            format!("each reader takes up to {PER_READER}; some readers that max_readers admits will be refused"),
            match site.edit(&format!("LimitNOFILE={needed}")) {
                Some(edit) => format!("{edit}, or ulimit -n {needed} before shmd starts"),
                None => format!("ulimit -n {needed} before shmd starts"),
            },
        ));
    }
    for stat in channels {
        let Some(writer) = stat.writer.as_ref().filter(|writer| writer.role == WriterRole::Lent) else { continue };
        // Besides what the program has open for other purposes.
        let needed = u64::from(stat.max_readers) + BESIDES / 2;
        if let Some(limit) = limit_of(writer.pid).filter(|limit| *limit < needed) {
            findings.push(Finding::new(
                Severity::Warning,
                "descriptors",
                format!(
                    "the writer of channel {} (pid {}) may open {limit} descriptors, and needs about {needed} for {} readers",
                    stat.channel, writer.pid, stat.max_readers
                ),
                "the writer keeps one descriptor per reader; when it has no descriptor left, the next reader is evicted",
                format!("ulimit -n {needed} before the writer starts"),
            ));
        }
    }
    findings
}

/// The soft limit of open files in the text of `/proc/PID/limits`; the greatest number if there is no limit.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

/// Whether logind will remove the objects of a user's own daemon when the user logs out.
pub(super) fn remove_ipc(uid: u32) -> Option<Finding> {
    remove_ipc_below(Path::new("/"), uid)
}

fn remove_ipc_below(root: &Path, uid: u32) -> Option<Finding> {
    let user = user_name(uid);
    let has = |path: &str| root.join(path).exists();
    if uid < FIRST_USER || !has("run/systemd/seats") || has(&format!("var/lib/systemd/linger/{user}")) {
        return None;
    }
    let (value, file) = setting(root);
    (!matches!(value.as_str(), "no" | "false" | "off" | "0" | "n" | "f")).then(|| {
        Finding::new(
            Severity::Warning,
            "remove-ipc",
            format!("the channels of {user} vanish when {user} logs out"),
            format!("RemoveIPC={value} ({file}): logind removes the shared memory of users without a session"),
            format!("loginctl enable-linger {user}"),
        )
    })
}

/// Directories with logind's configuration. A file hides those of its name in the directories before it.
const LOGIND: [&str; 4] = ["usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd"];

/// The value of `RemoveIPC=`, and where it comes from. Of several, the last counts: first one `logind.conf`, then the files of all
/// directories in the order of their names.
fn setting(root: &Path) -> (String, String) {
    let mut parts = BTreeMap::new();
    for dir in LOGIND.map(|dir| format!("{dir}/logind.conf.d")) {
        let entries = fs::read_dir(root.join(&dir)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        parts.extend(names.filter(|name| name.ends_with(".conf")).map(|name| (name.clone(), format!("{dir}/{name}"))));
    }
    let first = LOGIND.iter().rev().map(|dir| format!("{dir}/logind.conf")).find(|file| root.join(file).exists());
    let value =
        |line: &str| Some(line.trim().strip_prefix("RemoveIPC")?.trim_start().strip_prefix('=')?.trim().to_lowercase());
    let mut found = ("yes".to_owned(), "the default".to_owned());
    for file in first.into_iter().chain(parts.into_values()) {
        let text = fs::read_to_string(root.join(&file)).unwrap_or_default();
        if let Some(value) = text.lines().filter_map(value).next_back() {
            found = (value, format!("/{file}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::{Mode, WriterStat};
    use shm_test_support::TempDir;

    use super::*;

    fn channel(max: u64) -> ChannelStat {
        let mut stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
        (stat.max, stat.memory) = (max, 1 << 20);
        stat
    }

    const ROOM: Room = Room { size: 8 << 30, free: 4 << 30, inodes: (1000, 500) };

    #[test]
    fn a_file_system_that_is_too_small_for_all_channels_is_found() {
        assert_eq!(room(ROOM, &[channel(256 << 20)]), []);
        let findings = room(Room { size: DOCKERS, free: DOCKERS, ..ROOM }, &[channel(256 << 20), channel(256 << 20)]);
        let [found] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!(found.what, "/dev/shm has 64MiB, and the max of 2 channels together is 512MiB");
        assert!(found.command.contains("--shm-size=640m"), "{found:?}");
        let findings = room(Room { size: 1 << 30, free: 1 << 30, ..ROOM }, &[channel(4 << 30)]);
        assert_eq!(findings[0].command, "mount -o remount,size=5120m /dev/shm");
        // No limit at all.
        assert_eq!(room(Room { size: 0, free: 0, inodes: (0, 0) }, &[channel(4 << 30)]), []);
    }

    #[test]
    fn a_file_system_that_is_full_is_found() {
        let findings = room(Room { free: 1 << 20, ..ROOM }, &[channel(256 << 20)]);
        assert_eq!(findings[0].what, "/dev/shm has only 1MiB free of 8GiB");
        // A channel that cannot grow needs nothing.
        assert_eq!(room(Room { free: 0, ..ROOM }, &[channel(1 << 20)]), []);
        let findings = room(Room { inodes: (1000, 0), ..ROOM }, &[]);
        assert!(findings[0].command.contains("nr_inodes=2000"), "{findings:?}");
    }

    #[test]
    fn the_limit_of_open_files_is_read_from_its_line() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             127000               127000               processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn too_few_descriptors_for_the_readers_are_found() {
        let own = std::process::id();
        let daemon = Pong::new("0".into(), own, "shmd".into());
        let site = Site::new(Path::new("/run/shmd/shmd.sock"), None);
        let mut stat = channel(1);
        assert_eq!(descriptors(&daemon, &[stat.clone()], &site), []);
        stat.max_readers = 2_000_000_000;
        stat.writer = Some(WriterStat::new(WriterRole::Lent, own, "camd".into(), "me".into()));
        let findings = descriptors(&daemon, &[stat], &site);
        assert!(findings[0].command.contains("LimitNOFILE=10000000064"), "{findings:?}");
        assert!(findings[1].what.contains("the writer of channel cam"), "{findings:?}");
    }

    #[test]
    fn logind_removes_the_objects_of_users_without_a_session_unless_it_is_told_otherwise() {
        let root = TempDir::new();
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        let uid = 54_321;
        assert_eq!(remove_ipc_below(&root, uid), None, "without logind");
        fs::create_dir_all(root.join("run/systemd/seats")).unwrap();
        let found = remove_ipc_below(&root, uid).unwrap();
        assert!(found.cause.contains("RemoveIPC=yes (the default)"), "{found:?}");
        assert_eq!(found.command, "loginctl enable-linger 54321");
        assert_eq!(remove_ipc_below(&root, 999), None, "a system user");
        write("etc/systemd/logind.conf", "[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n");
        assert_eq!(remove_ipc_below(&root, uid), None);
        write("etc/systemd/logind.conf.d/x.conf", "[Login]\nRemoveIPC=Yes\n");
        assert!(remove_ipc_below(&root, uid).unwrap().cause.contains("/etc/systemd/logind.conf.d/x.conf"));
        // The name decides, and not the directory, unless the names are the same.
        write("usr/lib/systemd/logind.conf.d/y.conf", "[Login]\nRemoveIPC = no\n");
        assert_eq!(remove_ipc_below(&root, uid), None);
        write("run/systemd/logind.conf.d/y.conf", "[Login]\n");
        assert!(remove_ipc_below(&root, uid).unwrap().cause.contains("/etc/systemd/logind.conf.d/x.conf"));
        write("var/lib/systemd/linger/54321", "");
        assert_eq!(remove_ipc_below(&root, uid), None, "the user lingers");
    }
}
