//! Facts about a process from `/proc`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Group, Pid, SysconfVar, Uid, User, sysconf};

use super::file_id::FileId;
use crate::error::{Result, SystemError};

/// The fields of `/proc/PID/stat` from the third on, the state letter.
///
/// The second field is the program's name in parentheses. It may contain any bytes, including spaces and parentheses; the last
/// closing parenthesis ends it.
fn fields_of_stat(stat: &[u8]) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    Some(std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace())
}

/// State letter and start time from the text of `/proc/PID/stat`.
fn parse_stat(stat: &[u8]) -> Option<(u8, u64)> {
    let mut fields = fields_of_stat(stat)?;
    let state = *fields.next()?.as_bytes().first()?;
    // Field 22 of the line, counted from 1; the state was field 3.
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

fn stat(pid: u32) -> Option<(u8, u64)> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// When process `pid` started, in clock ticks after boot. Number, start and boot id together identify one process. `None` if
/// there is no such process, or if this process may not look at it.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    stat(pid).map(|(_, start)| start)
}

/// At most 15 bytes of the name of the program that process `pid` runs. A byte that is not printable ASCII is shown as `?`.
#[must_use]
pub fn program(pid: u32) -> Option<String> {
    fs::read(format!("/proc/{pid}/comm")).ok().map(|name| printable(&name))
}

/// A process chooses its own name, and escape sequences in it must not reach the operator's terminal.
fn printable(name: &[u8]) -> String {
    let name = name.strip_suffix(b"\n").unwrap_or(name);
    let shown = |&byte: &u8| if byte == b' ' || byte.is_ascii_graphic() { char::from(byte) } else { '?' };
    name.iter().map(shown).collect()
}

/// The kernel's random number of this boot, as two halves.
///
/// # Errors
/// [`SystemError`] if `/proc` does not tell.
pub fn boot_id() -> Result<[u64; 2]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(PATH).map_err(|error| SystemError::new(format!("read {PATH}"), error))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) if digits.len() == 32 => Ok([(id >> 64) as u64, id as u64]),
        _ => {
            let reason = format!("{:?} is not a UUID", text.trim());
            Err(SystemError::new(format!("read {PATH}"), io::Error::new(io::ErrorKind::InvalidData, reason)))
        }
    }
}

/// The name of user `uid`, or the number if the user has no name.
#[must_use]
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// The name of a group, or its number if it has no name.
#[must_use]
pub fn group_name(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    }
}

/// Whether the process `pid` that started at `start` (see [`start_ticks`]) still runs. A zombie does not.
///
/// A process that exists but that `/proc` hides counts as this one: it is better to refuse than to take an object from a process
/// that is alive.
#[must_use]
pub fn is_alive(pid: u32, start: u64) -> bool {
    match stat(pid) {
        Some((state, started)) => started == start && !matches!(state, b'Z' | b'X' | b'x'),
        None => match i32::try_from(pid) {
            Ok(pid) if pid > 0 => !matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH)),
            _ => false,
        },
    }
}

/// Whether a process of this group has not ended, as far as `/proc` shows it. A zombie has ended.
#[must_use]
pub fn has_group(group: u32) -> bool {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.any(|pid| {
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state, the parent, the group.
        let fields = fields_of_stat(&stat).map(|mut fields| (fields.next(), fields.nth(1)));
        fields.is_some_and(|(state, its)| {
            !matches!(state, Some("Z" | "X" | "x")) && its.and_then(|its| its.parse().ok()) == Some(group)
        })
    })
}

/// Whether process `pid` has ended, if it had started by `since`, in clock ticks after boot. A zombie has ended. A process that
/// `/proc` hides counts as that process, alive.
#[must_use]
pub fn has_ended(pid: u32, since: u64) -> bool {
    let start = start_ticks(pid).unwrap_or(since);
    start > since || !is_alive(pid, start)
}

/// The time now, in clock ticks after boot; the greatest of all times if the system does not tell.
#[must_use]
pub fn now_ticks() -> u64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok();
    let ticks = per_second.zip(now).map(|(per_second, now)| {
        let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
        seconds * per_second + nanoseconds * per_second / 1_000_000_000
    });
    ticks.unwrap_or(u64::MAX)
}

/// The PID namespace of this process, by the inode number of the namespace; 0 if `/proc` does not tell.
#[must_use]
pub fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

/// Whether any process holds an `flock` on the file, as far as `/proc` shows it.
#[must_use]
pub fn is_locked(file: FileId) -> bool {
    let FileId { device, inode } = file;
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let wanted = format!("{major:02x}:{minor:02x}:{inode}");
    // 1: FLOCK  ADVISORY  WRITE 4711 00:1a:12345 0 EOF
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        // A process that waits for the lock has an arrow after the number.
        fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&wanted.as_str())
    })
}

/// Processes other than this one that have the file mapped, as far as `/proc` shows them.
#[must_use]
pub fn mapped_by(file: FileId) -> Vec<u32> {
    let FileId { device, inode } = file;
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let wanted = (format!("{major:02x}:{minor:02x}"), inode.to_string());
    let maps_it = |pid: &u32| {
        // A process may end meanwhile, or belong to another user.
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().any(|line| {
            let mut fields = line.split_ascii_whitespace().skip(3);
            (fields.next(), fields.next()) == (Some(wanted.0.as_str()), Some(wanted.1.as_str()))
        })
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| pid != std::process::id()).filter(maps_it).collect()
}

#[cfg(test)]
mod tests {
    use std::process::id;

    use super::*;
    use shm_test_support::{TempDir, wait_until};

    /// A program that sleeps for longer than any test takes. It is killed at the end of the test.
    struct Sleeper(std::process::Child);

    impl Sleeper {
        fn start() -> Self {
            Self(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_program_name_with_spaces_parentheses_and_odd_bytes_does_not_confuse_the_fields() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in [&b"sh"[..], b"a b", b") R 9 9 (", b"((", b"\xff\xfe)", b""] {
            let mut line = b"42 (".to_vec();
            line.extend_from_slice(name);
            line.extend_from_slice(b") ");
            line.extend_from_slice(tail.as_bytes());
            assert_eq!(parse_stat(&line), Some((b'S', 4711)), "{name:?}");
        }
        for line in
            ["", "42 (sh", "42 (sh)", "42 (sh) S 1 2 3", "42 (sh) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"]
        {
            assert_eq!(parse_stat(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn this_process_is_alive_and_another_of_its_number_is_not() {
        let start = start_ticks(id()).unwrap();
        assert!(is_alive(id(), start));
        assert!(!is_alive(id(), start + 1));
        assert!(!is_alive(0, start));
        assert!(!is_alive(u32::MAX, start));
        assert_eq!(start_ticks(u32::MAX), None);
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut sleeper = Sleeper::start();
        let child = &mut sleeper.0;
        let start = start_ticks(child.id()).unwrap();
        assert!(is_alive(child.id(), start));
        child.kill().unwrap();
        wait_until("the child is a zombie", || !is_alive(child.id(), start));
        assert_eq!(start_ticks(child.id()), Some(start), "it is not reaped yet");
        child.wait().unwrap();
        assert_eq!(start_ticks(child.id()), None);
    }

    #[test]
    fn a_group_lasts_until_its_last_process_has_ended() {
        use std::os::unix::process::CommandExt;
        let mut leader = Sleeper(std::process::Command::new("sleep").arg("1000").process_group(0).spawn().unwrap());
        let group = leader.0.id();
        assert!(has_group(group));
        leader.0.kill().unwrap();
        wait_until("a zombie is all that is left", || !has_group(group));
    }

    #[test]
    fn a_lock_is_seen_as_long_as_it_is_held() {
        use nix::fcntl::{Flock, FlockArg};
        let dir = TempDir::new();
        let file = fs::File::create(dir.join("locked")).unwrap();
        let found = FileId::of(&file).unwrap();
        assert!(!is_locked(found));
        let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        assert!(is_locked(found));
        drop(lock);
        assert!(!is_locked(found));
    }

    #[test]
    fn a_program_is_shown_without_control_characters() {
        assert!(program(id()).is_some_and(|name| !name.is_empty()));
        assert_eq!(printable(b"a b\x1b[2J\xc3\xa9\n"), "a b?[2J??");
        assert_eq!(program(u32::MAX), None);
    }

    #[test]
    fn a_boot_has_one_id() {
        let first = boot_id().unwrap();
        assert_ne!(first, [0, 0]);
        assert_eq!(boot_id().unwrap(), first);
    }

    #[test]
    fn a_user_without_a_name_is_shown_by_number() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_123_456_789), "4123456789");
        assert_eq!((group_name(0).as_str(), group_name(4_123_456_789).as_str()), ("root", "4123456789"));
    }

    #[test]
    fn a_process_has_ended_when_it_is_dead_or_its_number_is_a_younger_process_s() {
        let mut sleeper = Sleeper::start();
        let pid = sleeper.0.id();
        let start = start_ticks(pid).unwrap();
        assert!(start <= now_ticks());
        assert!(!has_ended(pid, start) && !has_ended(pid, now_ticks()));
        assert!(has_ended(pid, start - 1), "a younger process has its number");
        sleeper.0.kill().unwrap();
        wait_until("it is a zombie", || has_ended(pid, now_ticks()));
        sleeper.0.wait().unwrap();
        assert!(has_ended(pid, now_ticks()));
        assert_ne!(pid_namespace(), 0);
    }
}
