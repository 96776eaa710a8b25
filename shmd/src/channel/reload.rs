//! A channel's configuration has changed: takes over the keys that can change, and names the others.

use shm_proto::internal::control::Change;

use crate::config::{ChannelConfig, SourceKind, values};

/// Why something stays as it is.
const FIXED: &str = "it is fixed while the channel exists; restart shmd, or take the channel out for one reload";
const FOR_THE_BEGINNING: &str = "it is for the channel's beginning; say shmctl resize";
const FIFO_HAS_IT: &str = "it is in the permissions that the source's FIFO was made with; restart shmd";
const OTHER_MODE: &str = "the channel keeps its mode, and with it everything but read, write and admin; restart shmd, or take the \
                          channel out for one reload";
const RELIED_ON: &str = "attached programs may rely on it; restart shmd, or take the channel out for one reload. The text of a schema \
                         may change if its name and encoding stay";
const OVER_MAX: &str = "it is more than the channel's max, which stays";

/// The keys that declare what messages are.
const CONTENT: [&str; 5] = ["content", "schema", "schema_encoding", "schema_text", "schema_file"];
/// The longest value that is told, in characters.
const MOST_TOLD: usize = 200;

/// A value for people. A schema may be longer than anybody wants to read.
fn short(value: String) -> String {
    match value.char_indices().nth(MOST_TOLD) {
        Some((end, _)) => format!("{}... ({} bytes)", &value[..end], value.len()),
        None => value,
    }
}

/// The keys whose values differ, with both values.
fn differences(old: &ChannelConfig, new: &ChannelConfig) -> Vec<(&'static str, String, String)> {
    let (old, new) = (values(old), values(new));
    // Only packets have no framing; where it goes or comes the source has changed.
    let get = |values: &[(&'static str, String)], key| {
        values.iter().find(|(k, _)| *k == key).map_or_else(|| "none".to_owned(), |(_, value)| value.clone())
    };
    let mut keys: Vec<_> = old.iter().chain(&new).map(|(key, _)| *key).collect();
    let mut seen = std::collections::HashSet::new();
    keys.retain(|key| seen.insert(*key));
    let both = keys.into_iter().map(|key| (key, get(&old, key), get(&new, key)));
    both.filter(|(_, old, new)| old != new).collect()
}

/// What has changed and what has not.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Taken over.
    pub(crate) changed: Vec<Change>,
    /// Left as it was, and why.
    pub(crate) kept: Vec<Change>,
}

impl Outcome {
    /// A key with a new value: taken over, unless there is a reason why not.
    fn add(&mut self, change: Change) {
        if change.why.is_none() { self.changed.push(change) } else { self.kept.push(change) }
    }
}

/// The old configuration with everything of the new one that can change under readers and writer, and what becomes of each
/// key that differs. `refused` is why permissions and group stay, if they do. Whatever is not taken here is in the segment's
/// header, in the source that is running, or meant for the channel's beginning.
pub(super) fn merge(old: &ChannelConfig, new: ChannelConfig, refused: Option<String>) -> (ChannelConfig, Outcome) {
    let (mut next, mut outcome) = (old.clone(), Outcome::default());
    let is_fifo = matches!(old.source, SourceKind::Fifo(..));
    let takes_content = old.declared.content.is_none() || new.declared.names_are_those_of(&old.declared);
    for (key, before, after) in differences(old, &new) {
        let why = match key {
            "write" if is_fifo => Some(FIFO_HAS_IT.to_owned()),
            "permissions" | "group" if refused.is_some() => refused.clone(),
            "min" if new.min > old.max => Some(OVER_MAX.to_owned()),
            "capacity" => Some(FOR_THE_BEGINNING.to_owned()),
            key if CONTENT.contains(&key) => (!takes_content).then(|| RELIED_ON.to_owned()),
            key if take(&mut next, &new, key) => None,
            _ => Some(FIXED.to_owned()),
        };
        outcome.add(Change::new(Some(old.name.clone()), key, short(before), short(after), why));
    }
    if takes_content {
        let (before, after) = (old.declared.digest(), new.declared.digest());
        let is_same_file = new.declared.text.as_ref().and_then(|text| text.file())
            == old.declared.text.as_ref().and_then(|text| text.file());
        // The same file, with another text in it.
        if before != after && is_same_file && new.declared.text.as_ref().is_some_and(|text| text.file().is_some()) {
            outcome.add(Change::new(Some(old.name.clone()), "schema_file", before, after, None));
        }
        next.declared = new.declared.clone();
    }
    // Who may do what even where no key differs: the names may stand for other numbers by now.
    if refused.is_none() {
        (next.mode, next.group) = (new.mode, new.group);
    }
    next.read = new.read.and_group(next.group.as_ref().map(|(_, gid)| *gid));
    if !is_fifo {
        next.write = new.write;
    }
    next.admin = new.admin;
    if let Some(created) = next.created.take() {
        // The configuration has it from now on.
        let before = format!("created by {}", created.user);
        outcome.add(Change::new(Some(old.name.clone()), "origin", before, "configuration".to_owned(), None));
    }
    (next, outcome)
}

/// That the next program in this process, which goes by the new configuration, goes on with the present channel's objects.
///
/// # Errors
/// Which key is in the way.
pub(crate) fn stays_as_it_is(present: &ChannelConfig, new: &ChannelConfig) -> Result<(), String> {
    let way = "take the change back, or restart shmd";
    if new.handoff.is_some() != present.handoff.is_some() {
        return Err(format!("the configuration gives it another mode; {way}"));
    }
    let (_, outcome) = merge(present, new.clone(), None);
    // What it has now is in the segment, and the beginning is over.
    match outcome.kept.into_iter().find(|change| change.key != "capacity") {
        None => Ok(()),
        Some(change) => {
            Err(format!("{} is {}, and {} in the configuration; {way}", change.key, change.old, change.new))
        }
    }
}

/// Takes one key over, if it can change.
fn take(next: &mut ChannelConfig, new: &ChannelConfig, key: &str) -> bool {
    match key {
        "min" => next.min = new.min,
        // A ring's readers and writer go by what its header says.
        "on_full" if next.handoff.is_some() => next.on_full = new.on_full,
        "max_readers" => next.max_readers = new.max_readers,
        "evict_after" => next.evict_after = new.evict_after,
        "shrink_after" => next.shrink_after = new.shrink_after,
        "stalled_after" => next.stalled_after = new.stalled_after,
        "ack" => next.ack = new.ack,
        "ack_timeout" => next.ack_timeout = new.ack_timeout,
        "wait_readers" => next.wait_readers = new.wait_readers,
        "prefault" => next.prefault = new.prefault,
        // Taken over by `merge`.
        "permissions" | "group" | "read" | "write" | "admin" => {}
        _ => return false,
    }
    true
}

/// The new configuration is one of the other mode, which stays. The access lists mean the same in both modes and are taken
/// over; all other keys that differ are named.
pub(super) fn in_other_mode(present: &ChannelConfig, new: ChannelConfig) -> (ChannelConfig, Vec<Change>) {
    // Keys that only one of the modes has are not named.
    let [known, asked] = [present, &new].map(values);
    let has = |values: &[(&'static str, String)], key: &str| values.iter().any(|(known, _)| *known == key);
    let in_both = |key: &str| has(&known, key) && has(&asked, key);
    let others = differences(present, &new).into_iter().filter(|(key, ..)| in_both(key));
    let others = others.filter(|(key, ..)| !["read", "write", "admin"].contains(key));
    let mut kept: Vec<Change> = others
        .map(|(key, old, new)| {
            let why = Some(if key == "mode" { FIXED } else { OTHER_MODE }.to_owned());
            Change::new(Some(present.name.clone()), key, old, new, why)
        })
        .collect();
    kept.sort_by_key(|change| change.key != "mode");
    let (read, write, admin) = (new.read, new.write, new.admin);
    (ChannelConfig { read, write, admin, created: None, ..present.clone() }, kept)
}
