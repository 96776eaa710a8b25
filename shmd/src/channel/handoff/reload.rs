//! A handoff channel's configuration has changed.

use super::Channel;
use crate::channel::reload::{Outcome, merge};
use crate::config::ChannelConfig;

impl Channel {
    /// Takes over what a new configuration of this channel has to say. The feed has no more of it than who may do what.
    pub(in crate::channel) fn reconfigure_handoff(&mut self, new: ChannelConfig) -> Outcome {
        let Some(handoff) = &mut self.handoff else { return Outcome::default() };
        let dressed = (new.mode, &new.group) == (handoff.config.mode, &handoff.config.group);
        let gid = new.group.as_ref().map(|(_, gid)| *gid);
        let refused = if dressed { None } else { handoff.access.set(new.mode, gid).err().map(|e| e.to_string()) };
        let (next, outcome) = merge(&handoff.config, new, refused);
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
