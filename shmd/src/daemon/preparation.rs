//! The objects of new channels, made in a thread, so that the other channels continue.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shm_proto::internal::ring::Owner;
use shm_proto::{ErrorKind, Prefix, Refusal, Result};

use super::work::Work;
use crate::channel::Prepared;
use crate::config::{ChannelConfig, Config};
use crate::connections::refusal;
use crate::event_loop::ClientId;

/// How long a peer that sits in the mutex of stale handoff objects is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Removes objects that nobody wants any more.
pub(super) fn discard(unwanted: Vec<Prepared>) {
    unwanted.into_iter().for_each(Prepared::discard);
}

/// A reload that waits for its new channels' objects. Dropping it gives them up.
#[derive(Debug)]
pub(super) struct Preparation {
    /// What is to be taken over then.
    pub(super) config: Config,
    /// The client that waits for the answer.
    pub(super) client: Option<ClientId>,
    /// The user or the signal that asked for it.
    pub(super) by: String,
    /// The objects, all or none.
    pub(super) making: Work<Vec<Prepared>>,
}

impl Preparation {
    /// Starts to make the objects of `wanted`.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub(super) fn start(
        config: Config,
        wanted: Vec<ChannelConfig>,
        owner: Owner,
        client: Option<ClientId>,
        by: String,
    ) -> Result<Self> {
        let prefix = config.prefix.clone();
        let making = Work::start("reload", discard, move |ending| make_all(wanted, &prefix, owner, ending))?;
        Ok(Self { config, client, by, making })
    }
}

fn make_all(
    wanted: Vec<ChannelConfig>,
    prefix: &Prefix,
    owner: Owner,
    ending: &AtomicBool,
) -> Result<Vec<Prepared>, Refusal> {
    let mut made = Vec::new();
    for config in wanted {
        match Prepared::make(config, prefix, owner, PATIENCE, ending) {
            Ok(prepared) => made.push(prepared),
            Err(e) => {
                discard(made);
                return Err(refusal(ErrorKind::NoSpace, format!("nothing was changed: {e}")));
            }
        }
    }
    Ok(made)
}
