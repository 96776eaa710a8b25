//! Who may connect to the daemon, and whether its objects are as it made them.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, getgroups};
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::internal::os::process::{group_name, user_name};
use shm_proto::internal::os::shm;

use super::finding::{Finding, Severity};
use super::site::Site;

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
pub(super) fn no_channel(site: &Site) -> Finding {
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
            format!("name {user} in read = [...] of a channel in shmd.toml, then: {}", site.shmctl("reload")),
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
pub(super) fn objects(channels: &[ChannelStat], site: &Site) -> Vec<Finding> {
    channels
        .iter()
        .filter(|stat| stat.handoff.is_none())
        .filter_map(|stat| object(stat, Path::new(&shm::path(&stat.segment)), site))
        .collect()
}

fn object(stat: &ChannelStat, path: &Path, site: &Site) -> Option<Finding> {
    let (channel, shown) = (&stat.channel, path.display());
    let Ok(found) = fs::symlink_metadata(path) else {
        return Some(Finding::new(
            Severity::Warning,
            "object",
            format!("the object of channel {channel}, {shown}, has lost its name"),
            "another program removed it, or this command runs in a container with a /dev/shm of its own; attached programs go on, \
             and after a crash of the daemon the channel begins anew",
            site.restart(),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use shm_proto::internal::control::stat::Mode;
    use shm_test_support::TempDir;

    use super::*;

    #[test]
    fn an_object_that_others_may_write_to_and_one_without_a_name_are_found() {
        let dir = TempDir::new();
        let path = dir.join("object");
        let stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
        let site = Site::new(Path::new("/run/shmd/shmd.sock"), None);
        assert!(object(&stat, &path, &site).unwrap().what.contains("has lost its name"));
        fs::write(&path, "").unwrap();
        for (mode, bad) in [(0o640, false), (0o644, false), (0o660, true), (0o646, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(object(&stat, &path, &site).is_some(), bad, "{mode:o}");
        }
    }
}
