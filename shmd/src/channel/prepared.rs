//! What a channel needs and what takes time to get: memory, names in `/dev/shm`, the mutex of handoff objects that were left.
//!
//! The rest of a channel is made from it in a moment, so that a daemon that serves other channels does not stand still.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shm_proto::internal::handoff::{Names, Origin, Writer};
use shm_proto::internal::ring::Owner;
use shm_proto::{ChannelName, Error, Prefix, Result};

use super::handoff;
use super::ring::{Made, Segment};
use crate::config::ChannelConfig;

/// The objects of one channel; they go when this is dropped.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) config: ChannelConfig,
    /// The segment of the ring, or of the feed.
    pub(super) segment: Made,
    /// What the feed is configured as, and what it feeds.
    pub(super) handoff: Option<(ChannelConfig, Names, Writer)>,
}

impl Prepared {
    /// Makes the objects. A peer that sits in the mutex of handoff objects that were left is waited for as long as `patience`;
    /// memory is waited for until it is there or `ending` says that nobody wants it any more.
    ///
    /// # Errors
    /// When a name is taken or there is no memory.
    pub(crate) fn make(
        config: ChannelConfig,
        prefix: &Prefix,
        owner: Owner,
        patience: Duration,
        ending: &AtomicBool,
    ) -> Result<Self> {
        let failed = |reason: String| Error::system(format!("channel {}", config.name), io::Error::other(reason));
        let Some(names) = config.handoff.clone() else {
            let segment = Segment::create(prefix, &config, owner, ending).map_err(|e| failed(e.to_string()))?;
            return Ok(Self { segment, handoff: None, config });
        };
        let feed = handoff::feed(&config);
        let segment = Segment::create(prefix, &feed, owner, ending).map_err(|e| failed(e.to_string()))?;
        let settings = handoff::settings(&config, names.clone());
        let writer = Writer::create_within(settings, patience, ending).map_err(|e| failed(e.to_string()))?;
        Ok(Self { segment, handoff: Some((feed, names, writer)), config })
    }

    /// Removes the objects again. Those that a dead daemon has left stay.
    pub(crate) fn discard(self) {
        match self.handoff {
            Some((_, names, writer)) if !matches!(writer.origin(), Origin::Adopted { .. }) => {
                handoff::removed(&self.config.name, &names, writer.close());
            }
            // Nothing of it is removed.
            Some((_, _, writer)) => drop(writer.leave_adopted()),
            None => {}
        }
    }

    /// The channel's name.
    pub(crate) fn name(&self) -> &ChannelName {
        &self.config.name
    }
}
