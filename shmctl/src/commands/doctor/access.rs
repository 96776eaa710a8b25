//! Who may connect to the daemon, and whether the daemon may give its objects to the groups that the configuration names.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups};
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::internal::os::process::{group_name, user_name};
use shm_proto::internal::os::shm;

use super::finding::{Finding, Severity};

/// The system's configuration, which a daemon reads that was given no other.
const CONFIG: &str = "/etc/shmd/shmd.toml";

/// Why the socket refuses this user, and what helps.
pub(super) fn socket(socket: &Path) -> Finding {
    let user = user_name(geteuid().as_raw());
    let what = format!("{user} may not connect to {}", socket.display());
    // The socket itself lets everybody connect; a directory on the way does not.
    let closed = socket.ancestors().skip(1).filter_map(|dir| Some((dir, fs::metadata(dir).ok()?)));
    let closed = closed.filter(|(_, found)| found.mode() & 0o001 == 0).last();
    let Some((dir, found)) = closed.or_else(|| Some((socket, fs::metadata(socket).ok()?))) else {
        let command = format!("namei -l {}", socket.display());
        return Finding::new(Severity::Unknown, "socket", what, "a directory on the way cannot be looked at", command);
    };
    let (owner, group) = (user_name(found.uid()), group_name(found.gid()));
    let cause = format!("{} has mode {:04o}, user {owner}, group {group}", dir.display(), found.mode() & 0o7777);
    let command = if found.mode() & 0o010 != 0 && !has_group(found.gid()) {
        format!("usermod -aG {group} {user}, then log in again")
    } else {
        format!("chmod o+x {}", dir.display())
    };
    Finding::new(Severity::Unknown, "socket", what, cause, command)
}

fn has_group(gid: u32) -> bool {
    getegid().as_raw() == gid || getgroups().is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
}

/// The daemon answers, and shows this user no channel.
pub(super) fn no_channel() -> Finding {
    let uid = geteuid();
    let user = user_name(uid.as_raw());
    let what = format!("{user} may use no channel of this daemon");
    let missing = new_groups(uid);
    if missing.is_empty() {
        return Finding::new(
            Severity::Unknown,
            "access",
            what,
            "no channel's read, write or admin names this user or one of its groups, or there is no channel",
            format!("name {user} in read = [...] of a channel in shmd.toml, then: shmctl reload"),
        );
    }
    let names: Vec<String> = missing.into_iter().map(group_name).collect();
    let cause = format!(
        "{user} was added to group {} after this session began, and the session has not got it",
        names.join(", ")
    );
    Finding::new(Severity::Unknown, "access", what, cause, format!("newgrp {}, or log in again", names[0]))
}

/// Groups that the user has, and this process has not.
fn new_groups(uid: Uid) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(uid) else { return Vec::new() };
    let Ok(name) = CString::new(user.name) else { return Vec::new() };
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).filter(|gid| !has_group(*gid)).collect()
}

/// Whether each channel's object is there and only its user may write to it.
pub(super) fn objects(channels: &[ChannelStat]) -> Vec<Finding> {
    channels
        .iter()
        .filter(|stat| stat.handoff.is_none())
        .filter_map(|stat| object(stat, Path::new(&shm::path(&stat.segment))))
        .collect()
}

fn object(stat: &ChannelStat, path: &Path) -> Option<Finding> {
    let (channel, shown) = (&stat.channel, path.display());
    let Ok(found) = fs::symlink_metadata(path) else {
        return Some(Finding::new(
            Severity::Warning,
            "object",
            format!("the object of channel {channel}, {shown}, has lost its name"),
            "another program removed it, or this command runs in a container with a /dev/shm of its own; attached programs go on, \
             and after a crash of the daemon the channel begins anew",
            "systemctl restart shmd",
        ));
    };
    (found.mode() & 0o022 != 0).then(|| {
        Finding::new(
            Severity::Critical,
            "object",
            format!("users other than the daemon's may write to {shown}, the object of channel {channel}"),
            format!("its mode is {:04o}; the daemon never sets such a mode", found.mode() & 0o7777),
            format!("chmod g-w,o-w {shown}"),
        )
    })
}

/// Groups in the configuration that the daemon is not in: it does not start, or refuses the reload.
pub(super) fn groups(daemon: Option<u32>) -> Vec<Finding> {
    let arguments = daemon.and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    let config = arguments.as_deref().and_then(config_of).unwrap_or_else(|| CONFIG.into());
    let Some(has) = groups_of(daemon) else { return Vec::new() };
    let texts = files(&config).into_iter().filter_map(|file| fs::read_to_string(&file).ok().map(|text| (file, text)));
    texts.flat_map(|(file, text)| missing(&file, &text, &has)).collect()
}

/// The file after `--config`, in a command line as `/proc` shows it.
fn config_of(arguments: &[u8]) -> Option<PathBuf> {
    let mut words = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    words
        .find_map(|word| word.strip_prefix("--config=").map(PathBuf::from).or((word == "--config").then(PathBuf::new)))
        .map(|path| if path.as_os_str().is_empty() { words.next().unwrap_or_default().as_ref().into() } else { path })
}

/// The file, and those beside it in `X.d`.
fn files(config: &Path) -> Vec<PathBuf> {
    let more = fs::read_dir(config.with_extension("d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut more: Vec<PathBuf> = more.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    more.sort_unstable();
    [config.to_owned()].into_iter().chain(more).collect()
}

/// The groups of the running daemon, or those that the system's daemon would have; nothing for root, who may use every group.
fn groups_of(daemon: Option<u32>) -> Option<Vec<u32>> {
    let Some(pid) = daemon else {
        let user = User::from_name("shmd").ok()??;
        let name = CString::new("shmd").ok()?;
        let mut has: Vec<u32> = getgrouplist(&name, user.gid).ok()?.into_iter().map(Gid::as_raw).collect();
        has.extend(supplementary(Path::new("/etc/systemd/system/shmd.service.d")));
        return Some(has);
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    if numbers("Uid:").get(1) == Some(&0) {
        return None;
    }
    Some([numbers("Groups:"), numbers("Gid:")].concat())
}

/// What drop-ins of the service add.
fn supplementary(dir: &Path) -> Vec<u32> {
    let texts =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let names = texts.flat_map(|text| {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix("SupplementaryGroups="));
        values.flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<_>>()
    });
    names.filter_map(|name| gid_of(&name)).collect()
}

fn gid_of(name: &str) -> Option<u32> {
    match Group::from_name(name) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        _ => name.parse().ok(),
    }
}

/// Lines `group = "NAME"` of a configuration whose group is not among these.
fn missing(file: &Path, text: &str, has: &[u32]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(value) =
            line.trim().strip_prefix("group").map(str::trim_start).and_then(|rest| rest.strip_prefix('='))
        else {
            continue;
        };
        let Some(name) = value.trim().strip_prefix(['"', '\'']).and_then(|rest| rest.split(['"', '\'']).next()) else {
            continue;
        };
        let place = format!("{}:{number}", file.display());
        match gid_of(name) {
            _ if name.is_empty() => {}
            None => findings.push(Finding::new(
                Severity::Critical,
                "group",
                format!("{place}: there is no group {name}"),
                "the daemon refuses a configuration that names it",
                format!("groupadd --system {name}"),
            )),
            Some(gid) if !has.contains(&gid) => {
                let dir = "/etc/systemd/system/shmd.service.d";
                findings.push(Finding::new(
                    Severity::Critical,
                    "group",
                    format!("{place}: the daemon is not in group {name}"),
                    "only a member may give objects to a group: the daemon does not start, and refuses a reload",
                    format!(
                        "mkdir -p {dir} && printf '[Service]\\nSupplementaryGroups={name}\\n' >{dir}/{name}.conf && systemctl \
                         daemon-reload && systemctl restart shmd"
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use shm_proto::internal::control::stat::Mode;
    use shm_test_support::TempDir;

    use super::*;

    #[test]
    fn groups_of_the_configuration_are_compared_with_the_daemons() {
        let text = "[[channel]]\n# group = \"1\"\ngroup = \"4242\"\n  group='4243' # a note\ngroup = \"\"\ngroups = \"9\"\ngroup = \"no such\"\n";
        let findings = missing(Path::new("/etc/x.toml"), text, &[4243]);
        let [one, two] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!(one.what, "/etc/x.toml:3: the daemon is not in group 4242");
        assert!(
            one.command.contains("SupplementaryGroups=4242") && one.command.ends_with("systemctl restart shmd"),
            "{one:?}"
        );
        assert_eq!(
            (two.what.as_str(), two.command.as_str()),
            ("/etc/x.toml:7: there is no group no such", "groupadd --system no such")
        );
    }

    #[test]
    fn the_daemons_configuration_is_found_on_its_command_line() {
        for (line, config) in [
            ("/usr/bin/shmd\0", None),
            ("shmd\0--log\0off\0--config\0/x/y.toml\0", Some("/x/y.toml")),
            ("shmd\0--config=/x/y.toml\0--log\0off\0", Some("/x/y.toml")),
        ] {
            assert_eq!(config_of(line.as_bytes()), config.map(PathBuf::from), "{line:?}");
        }
        let dir = TempDir::new();
        fs::create_dir(dir.join("shmd.d")).unwrap();
        for name in ["b.toml", "a.toml", "c.txt"] {
            fs::write(dir.join("shmd.d").join(name), "").unwrap();
        }
        let names = ["shmd.toml", "shmd.d/a.toml", "shmd.d/b.toml"].map(|name| dir.join(name));
        assert_eq!(files(&dir.join("shmd.toml")), names);
    }

    #[test]
    fn an_object_that_others_may_write_to_and_one_without_a_name_are_found() {
        let dir = TempDir::new();
        let path = dir.join("object");
        let stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
        assert!(object(&stat, &path).unwrap().what.contains("has lost its name"));
        fs::write(&path, "").unwrap();
        for (mode, bad) in [(0o640, false), (0o644, false), (0o660, true), (0o646, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(object(&stat, &path).is_some(), bad, "{mode:o}");
        }
    }
}
