//! What a channel needs and what takes time to get: memory, names in `/dev/shm`, the mutex of handoff objects that were left.
//!
//! The rest of a channel is made from it in a moment, so that a daemon that serves other channels does not stand still.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shm_proto::Geometry;
use shm_proto::internal::handoff::Writer;
use shm_proto::internal::ring::Owner;
use shm_proto::{ChannelName, Error, Prefix, Result};

use super::{Segment, handoff};
use crate::config::ChannelConfig;

/// The objects of one channel; they go when this is dropped.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(super) configured: ChannelConfig,
    /// Of the ring, which in handoff is the feed.
    pub(super) config: ChannelConfig,
    pub(super) segment: Segment,
    pub(super) geometry: Geometry,
    pub(super) handoff: Option<Writer>,
}

impl Prepared {
    /// Makes the objects. A peer that sits in the mutex of handoff objects that were left is waited for as long as `patience`;
    /// memory is waited for until it is there or `ending` says that nobody wants it any more.
    ///
    /// # Errors
    /// When a name is taken or there is no memory.
    pub(crate) fn make(
        configured: ChannelConfig,
        prefix: &Prefix,
        owner: Owner,
        patience: Duration,
        ending: &AtomicBool,
    ) -> Result<Self> {
        let failed = |e: Error| Error::system(format!("channel {}", configured.name), io::Error::other(e.to_string()));
        let config = handoff::feed(&configured);
        let (segment, geometry) = Segment::create(prefix, &config, owner, ending).map_err(failed)?;
        let handoff = handoff::settings(&configured)
            .map(|settings| Writer::create_within(settings, patience, ending).map_err(failed))
            .transpose()?;
        Ok(Self { configured, config, segment, geometry, handoff })
    }

    /// Removes the objects again.
    pub(crate) fn discard(self) {
        let Self { configured, handoff, .. } = self;
        if let Some(writer) = handoff {
            handoff::removed(&configured, writer.close());
        }
    }

    /// The channel's name.
    pub(crate) fn name(&self) -> &ChannelName {
        &self.configured.name
    }
}
