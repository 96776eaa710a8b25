//! A handoff channel's configuration has changed.

use shm_proto::control::Change;

use super::Channel;
use crate::channel::reload::{FIFO_HAS_IT, FIXED, FOR_THE_BEGINNING, OVER_MAX, Outcome, differences};
use crate::config::{ChannelConfig, SourceKind};

/// What can change under readers and writer.
const LIVE: [&str; 11] = [
    "min",
    "on_full",
    "max_readers",
    "shrink_after",
    "stalled_after",
    "ack_timeout",
    "group",
    "permissions",
    "read",
    "write",
    "admin",
];

impl Channel {
    /// Takes over what a new configuration of this channel has to say. The feed has no more of it than who may do what.
    pub(in crate::channel) fn reconfigure_handoff(&mut self, new: ChannelConfig) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(handoff) = &mut self.handoff else { return outcome };
        let mut next = handoff.config.clone();
        let dressed = (new.mode, &new.group) == (next.mode, &next.group);
        let gid = |config: &ChannelConfig| config.group.as_ref().map(|(_, gid)| *gid);
        let refused = if dressed { None } else { handoff.access.set(new.mode, gid(&new)).err().map(|e| e.to_string()) };
        if refused.is_none() {
            (next.mode, next.group) = (new.mode, new.group.clone());
        }
        let is_fifo = matches!(self.config.source, SourceKind::Fifo(..));
        for (key, old, written) in differences(&handoff.config, &new) {
            let why = match key {
                "write" if is_fifo => Some(FIFO_HAS_IT.to_owned()),
                "permissions" | "group" => refused.clone(),
                "min" if new.min > next.max => Some(OVER_MAX.to_owned()),
                "capacity" => Some(FOR_THE_BEGINNING.to_owned()),
                key if LIVE.contains(&key) => None,
                _ => Some(FIXED.to_owned()),
            };
            outcome.add(Change { channel: Some(next.name.clone()), key: key.to_owned(), old, new: written, why });
        }
        if new.min <= next.max {
            next.min = new.min;
        }
        next.on_full = new.on_full;
        next.max_readers = new.max_readers;
        next.shrink_after = new.shrink_after;
        next.stalled_after = new.stalled_after;
        next.ack_timeout = new.ack_timeout;
        next.read = new.read.and_group(gid(&next));
        if !is_fifo {
            next.write = new.write;
        }
        next.admin = new.admin;
        if (next.on_full, next.ack_timeout) != (handoff.config.on_full, handoff.config.ack_timeout) {
            handoff.bridge.set_policy(next.on_full, next.ack_timeout);
        }
        self.config.shrink_after = next.shrink_after;
        self.config.stalled_after = next.stalled_after;
        self.config.read = next.read.clone();
        self.config.write = next.write.clone();
        self.config.admin = next.admin.clone();
        handoff.config = next;
        self.tell_source();
        outcome
    }
}
