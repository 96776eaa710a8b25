//! Which users may read, write and administer a channel.

use std::fmt;

use nix::unistd::{Group, User};
use shm_proto::internal::os::peer::Credentials;

/// One entry of a list, resolved to numbers when the configuration is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// `*`.
    Everyone,
    /// `alice` or `1000`.
    User { text: String, uid: u32 },
    /// `@staff` or `@50`.
    Group { text: String, gid: u32 },
}

/// Why a name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is wrong.
    Wrong(String),
    /// The user database does not answer, which may pass.
    Unknown(String),
}

/// The same for a file, as far as permission bits can say it: its owner, one group, everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileAccess {
    /// No other users.
    Owner,
    /// The members of this group.
    Group(u32),
    /// Everybody.
    Everyone,
}

/// Which users may do one thing: root, the daemon's own user, and those in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    owner: u32,
    /// Lets its members in without being listed: the channel's group, for reading.
    implied: Option<u32>,
    /// The user who has made the channel at run time.
    creator: Option<u32>,
    entries: Vec<Entry>,
}

impl Access {
    /// Only root and `owner`, the daemon's user.
    pub(crate) fn only(owner: u32) -> Self {
        Access { owner, implied: None, creator: None, entries: Vec::new() }
    }

    /// Resolves `name` or uid, `@group` or gid, and `*`.
    ///
    /// # Errors
    /// Text that names the entry and its fault.
    pub(crate) fn parse(owner: u32, names: &[String]) -> Result<Self, Unusable> {
        let entries = names.iter().map(|name| parse_entry(name)).collect::<Result<_, _>>()?;
        Ok(Access { owner, implied: None, creator: None, entries })
    }

    /// The same, and the members of this group.
    pub(crate) fn and_group(self, gid: Option<u32>) -> Self {
        Access { implied: gid, ..self }
    }

    /// The same, and this user.
    pub(crate) fn and_user(self, uid: Option<u32>) -> Self {
        Access { creator: uid, ..self }
    }

    /// Whether a peer with these credentials may.
    pub(crate) fn allows(&self, peer: &Credentials) -> bool {
        let member = |gid| peer.is_in_group(gid);
        peer.uid == 0
            || peer.uid == self.owner
            || self.creator == Some(peer.uid)
            || self.implied.is_some_and(member)
            || self.entries.iter().any(|entry| match *entry {
                Entry::Everyone => true,
                Entry::User { uid, .. } => peer.uid == uid,
                Entry::Group { gid, .. } => member(gid),
            })
    }

    /// The list in terms of a file's permissions.
    ///
    /// # Errors
    /// The entry that permission bits cannot express.
    pub(crate) fn for_file(&self) -> Result<FileAccess, String> {
        let mut access = FileAccess::Owner;
        if self.entries.contains(&Entry::Everyone) {
            return Ok(FileAccess::Everyone);
        }
        for entry in &self.entries {
            access = match (entry, access) {
                (&Entry::Group { gid, .. }, FileAccess::Owner) => FileAccess::Group(gid),
                (&Entry::Group { gid, .. }, FileAccess::Group(same)) if gid == same => access,
                (Entry::Group { .. }, _) => return Err(format!("a second group, {entry}")),
                // Root and the owner may anyway.
                (&Entry::User { uid, .. }, _) if uid == 0 || uid == self.owner => access,
                _ => return Err(format!("user {entry}")),
            };
        }
        Ok(access)
    }

    /// The list as the configuration has it.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.entries.iter().map(Entry::to_string)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Everyone => f.write_str("*"),
            Entry::User { text, .. } => f.write_str(text),
            Entry::Group { text, .. } => write!(f, "@{text}"),
        }
    }
}

fn parse_entry(name: &str) -> Result<Entry, Unusable> {
    match name.strip_prefix('@') {
        _ if name == "*" => Ok(Entry::Everyone),
        Some(group) => Ok(Entry::Group { gid: group_id(group)?, text: group.to_owned() }),
        None => Ok(Entry::User { uid: user_id(name)?, text: name.to_owned() }),
    }
}

fn user_id(name: &str) -> Result<u32, Unusable> {
    if let Some(uid) = number(name).map_err(Unusable::Wrong)? {
        return Ok(uid);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(Unusable::Wrong(format!(
            "there is no user {name:?} here; create it, or give a number, @group or \"*\""
        ))),
        Err(e) => Err(Unusable::Unknown(format!(
            "cannot look up user {name:?}: {e}; mend the user database (getent passwd), or give the number"
        ))),
    }
}

/// The number of a group given by name or number.
///
/// # Errors
/// Text that names the group and its fault.
pub(crate) fn group_id(name: &str) -> Result<u32, Unusable> {
    if let Some(gid) = number(name).map_err(Unusable::Wrong)? {
        return Ok(gid);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(Unusable::Wrong(format!("there is no group {name:?} here; create it, or give a number"))),
        Err(e) => Err(Unusable::Unknown(format!(
            "cannot look up group {name:?}: {e}; mend the group database (getent group), or give the number"
        ))),
    }
}

/// The number that the text is, if it is one. The largest is no one's: the kernel takes it for "unchanged".
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Err("an empty name is no user; leave it out".to_owned());
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(format!("{text} is not a user or group number: the largest is {}", u32::MAX - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials { pid: 1, uid, gid, groups: groups.to_vec() }
    }

    fn access(names: &[&str]) -> Access {
        Access::parse(1000, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn nobody_but_root_and_the_daemons_user_may_without_being_listed() {
        for list in [Access::only(1000), access(&[])] {
            assert!(list.allows(&peer(0, 0, &[])));
            assert!(list.allows(&peer(1000, 5, &[])));
            assert!(!list.allows(&peer(1001, 0, &[0, 1000])));
        }
    }

    #[test]
    fn a_listed_user_may_whatever_the_groups() {
        let list = access(&["7"]);
        assert!(list.allows(&peer(7, 9, &[])));
        assert!(!list.allows(&peer(8, 7, &[7])));
    }

    #[test]
    fn members_of_a_listed_group_may_by_their_first_group_or_any_other() {
        let list = access(&["@50"]);
        assert!(list.allows(&peer(7, 50, &[])));
        assert!(list.allows(&peer(7, 9, &[8, 50])));
        assert!(!list.allows(&peer(50, 9, &[8])));
    }

    #[test]
    fn a_star_lets_everybody_in() {
        assert!(access(&["*"]).allows(&peer(65_534, 65_534, &[])));
    }

    #[test]
    fn the_channels_group_may_without_being_listed() {
        let list = Access::only(1000).and_group(Some(50));
        assert!(list.allows(&peer(7, 9, &[50])));
        assert!(!list.allows(&peer(7, 9, &[51])));
        assert_eq!(list.names().count(), 0);
    }

    #[test]
    fn the_user_who_made_the_channel_may_without_being_listed() {
        let list = Access::only(1000).and_user(Some(7));
        assert!(list.allows(&peer(7, 9, &[])));
        assert!(!list.allows(&peer(8, 7, &[7])));
        assert_eq!(list.names().count(), 0);
    }

    #[test]
    fn permission_bits_say_owner_one_group_or_everybody_and_nothing_else() {
        assert_eq!(access(&[]).for_file(), Ok(FileAccess::Owner));
        assert_eq!(access(&["0", "1000"]).for_file(), Ok(FileAccess::Owner));
        assert_eq!(access(&["@50", "1000", "@50"]).for_file(), Ok(FileAccess::Group(50)));
        assert_eq!(access(&["7", "*", "@50"]).for_file(), Ok(FileAccess::Everyone));
        assert_eq!(access(&["7"]).for_file(), Err("user 7".to_owned()));
        assert_eq!(access(&["@50", "@51"]).for_file(), Err("a second group, @51".to_owned()));
    }

    #[test]
    fn names_of_this_machine_are_resolved_and_shown_as_written() {
        let list = access(&["root", "@root", "*", "12", "@34"]);
        assert_eq!(list.names().collect::<Vec<_>>(), ["root", "@root", "*", "12", "@34"]);
        assert!(matches!(list.entries[0], Entry::User { uid: 0, .. }));
        assert!(matches!(list.entries[1], Entry::Group { gid: 0, .. }));
    }
}
