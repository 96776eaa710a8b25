//! A channel's mode, and what only a handoff channel has: the names of its objects, and permissions for both sides.

use shm_proto::internal::handoff::Names;
use shm_proto::internal::handoff::layout::HEADER_SIZE;
use shm_proto::{ChannelName, Prefix};

use super::origin::{Error, Located};
use super::raw::{Channel, HANDOFF};
use super::sizes::Sizes;

/// A ring's segment: readers only read it.
const RING: u32 = 0o640;
/// A handoff channel's objects: both sides write them.
const OBJECTS: u32 = 0o600;
const OBJECTS_WITH_GROUP: u32 = 0o660;

/// What the keys `mode`, `permissions`, `segment`, `avail` and `done` come to.
pub(super) struct Mode {
    pub(super) permissions: u32,
    pub(super) handoff: Option<Names>,
}

impl Mode {
    pub(super) fn check(raw: &Channel, prefix: &Prefix, name: &ChannelName, has_group: bool) -> Result<Self, Error> {
        let is_handoff = match raw.mode.as_ref().map(|mode| (mode, mode.value.as_str())) {
            None | Some((_, "ring")) => false,
            Some((_, HANDOFF)) => true,
            Some((mode, word)) => {
                return Err(mode.bad(format!("mode {word:?} is neither \"ring\" nor \"handoff\"")));
            }
        };
        let permissions = match &raw.permissions {
            Some(written) => permissions(written, is_handoff)?,
            None if !is_handoff => RING,
            None if has_group => OBJECTS_WITH_GROUP,
            None => OBJECTS,
        };
        let handoff = if is_handoff { Some(names(raw, prefix, name)?) } else { None };
        if is_handoff {
            refuse_the_rings_keys(raw)?;
        }
        if let (None, Some(written)) = (&handoff, [&raw.segment, &raw.avail, &raw.done].into_iter().flatten().next()) {
            return Err(written.bad("segment, avail and done name the objects of a channel with mode = \"handoff\""));
        }
        Ok(Self { permissions, handoff })
    }
}

/// What means nothing where one message at a time is handed over to one reader, who acknowledges it.
fn refuse_the_rings_keys(raw: &Channel) -> Result<(), Error> {
    let refuse = |key: &str, why: &str| format!("{key} is for a ring; in a channel with mode = \"handoff\" {why}");
    if let Some(written) = &raw.align {
        return Err(written.bad(refuse("align", "messages start at byte 60, where C programs look for them")));
    }
    if let Some(written) = &raw.evict_after {
        return Err(written.bad(refuse("evict_after", "ack_timeout says how long an acknowledgement may take")));
    }
    if let Some(written) = &raw.ack {
        return Err(written.bad(refuse("ack", "every message is acknowledged")));
    }
    if let Some(written) = &raw.wait_readers {
        return Err(written.bad(refuse("wait_readers", "publishing waits for a reader anyway")));
    }
    if let Some(written) = &raw.timestamps {
        return Err(written.bad(refuse("timestamps", "C programs have no place for them")));
    }
    if let Some(written) = &raw.prefault {
        return Err(written.bad(refuse("prefault", "C programs map the segment as they do")));
    }
    Ok(())
}

/// The largest message is what C programs can count on in the largest segment.
pub(super) fn max_message(raw: &Channel, sizes: &Sizes) -> Result<u64, Error> {
    let most = sizes.max - HEADER_SIZE;
    match &raw.max_message {
        Some(written) if written.value.get() > most => Err(written.bad(format!(
            "max_message {} does not fit into max: in a handoff segment of {} bytes the largest message is {most} \
             bytes; raise max or lower max_message",
            written.value, sizes.max
        ))),
        _ => Ok(sizes.max_message.min(most)),
    }
}

fn names(raw: &Channel, prefix: &Prefix, name: &ChannelName) -> Result<Names, Error> {
    let default = Names::of_channel(prefix, name);
    let or = |written: &Option<Located<String>>, default: String| written.as_ref().map_or(default, |w| w.value.clone());
    let (segment, avail, done) =
        (or(&raw.segment, default.segment), or(&raw.avail, default.avail), or(&raw.done, default.done));
    Names::new(&segment, &avail, &done).map_err(|error| {
        // Names that are not written are good ones, so one of these is there.
        match [&raw.segment, &raw.avail, &raw.done]
            .into_iter()
            .flatten()
            .find(|w| error.to_string().contains(&*w.value))
        {
            Some(written) => written.bad(error),
            None => Error::TooMuch(error.to_string()),
        }
    })
}

fn permissions(written: &Located<String>, is_handoff: bool) -> Result<u32, Error> {
    let text = written.value.strip_prefix("0o").unwrap_or(&written.value);
    let refuse = |why: &str| Err(written.bad(format!("permissions {:?} {why}", written.value)));
    match u32::from_str_radix(text, 8) {
        _ if !text.bytes().all(|digit| digit.is_ascii_digit()) => refuse("is not an octal number such as \"0640\""),
        Err(_) => refuse("is not an octal number such as \"0640\""),
        Ok(mode) if mode > 0o777 => refuse("has bits outside of 0777, the permission bits"),
        Ok(mode) if is_handoff && mode & 0o600 != 0o600 => {
            refuse("does not let the daemon itself read and write; use 0600, 0660 or 0666")
        }
        Ok(mode) if !is_handoff && mode & 0o022 != 0 => refuse(
            "lets group or others write the segment, and who can write it can cut it off under everybody's feet; \
             use 0640 or 0644, and the `write` list for who may publish",
        ),
        Ok(mode) => Ok(mode),
    }
}
