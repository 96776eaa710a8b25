//! Whether a user's programs can open the objects of a handoff channel. Without that, a place in the `read` list is useless.

use nix::unistd::getegid;
use shm_proto::internal::os::peer::Credentials;
use shm_proto::internal::os::process::{group_name, user_name};

use super::HandoffChannel;

impl HandoffChannel {
    /// Why this peer cannot take messages although the `read` list lets it: both sides of the protocol write the objects.
    pub(in crate::channel) fn shuts_out(&self, owner: u32, peer: &Credentials) -> Option<String> {
        let (mode, group) = (self.config.mode, self.config.group.as_ref());
        let gid = group.map_or_else(|| getegid().as_raw(), |(_, gid)| *gid);
        if lets_in(mode, owner, gid, peer) {
            return None;
        }
        let group = group.map_or_else(|| group_name(gid), |(name, _)| name.clone());
        Some(format!(
            "user {} may read it, but cannot open its objects: {} has mode {mode:04o} and belongs to user {} and group {group}, \
             and both sides of a handoff read and write it; whoever runs the daemon can set group and permissions = \"0660\" \
             for the members of a group, or permissions = \"0666\" for everybody, and reload",
            user_name(peer.uid),
            self.names.segment,
            user_name(owner),
        ))
    }
}

/// Whether permission bits let a peer read and write. Only the first class that fits the peer counts; root needs no bits.
fn lets_in(mode: u32, owner: u32, group: u32, peer: &Credentials) -> bool {
    let class = if peer.uid == owner {
        6
    } else if peer.is_in_group(group) {
        3
    } else {
        0
    };
    peer.uid == 0 || mode >> class & 0o6 == 0o6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_that_fits_first_decides() {
        let peer = |uid, gid, groups: &[u32]| Credentials { pid: 1, uid, gid, groups: groups.to_vec() };
        let (owner, member, other) = (peer(7, 70, &[]), peer(8, 80, &[70]), peer(9, 90, &[]));
        let who = |mode| [&owner, &member, &other, &peer(0, 0, &[])].map(|peer| lets_in(mode, 7, 70, peer));
        assert_eq!(who(0o600), [true, false, false, true]);
        assert_eq!(who(0o660), [true, true, false, true]);
        assert_eq!(who(0o666), [true, true, true, true]);
        assert_eq!(who(0o606), [true, false, true, true]);
        assert_eq!(who(0o644), [true, false, false, true]);
    }
}
