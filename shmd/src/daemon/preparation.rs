//! A reload that is being prepared, in threads, so that the channels continue: first the configuration is read, where users and
//! groups may have to be looked up over a network, then the objects of the new channels are made.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shm_proto::internal::ring::Owner;
use shm_proto::{ChannelName, ErrorKind, Prefix, Refusal};

use super::work::Work;
use crate::channel::Prepared;
use crate::config::{self, ChannelConfig, Config, Given};
use crate::connections::refusal;
use crate::event_loop::ClientId;
use crate::host::Host;

/// How long a peer that sits in the mutex of stale handoff objects is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Removes objects that nobody wants any more.
pub(super) fn discard(unwanted: Vec<Prepared>) {
    unwanted.into_iter().for_each(Prepared::discard);
}

/// Who wants a reload.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The user or the signal that asked for it last.
    pub(super) by: String,
    /// The clients that wait for the answer.
    pub(super) clients: Vec<ClientId>,
}

/// A reload that is under way. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Preparation {
    pub(super) wanted: Wanted,
    /// The configuration's channels, once it is read.
    pub(super) names: Vec<ChannelName>,
    pub(super) work: Work<Step>,
}

/// What has come of the work.
#[derive(Debug)]
pub(super) enum Step {
    /// The configuration is read.
    Read(Box<Config>),
    /// The objects of its new channels are made, all of them.
    Made(Box<Config>, Vec<Prepared>),
}

/// Starts the thread that reads the configuration. `stdin_feeds` is as it was at the start: standard input may have been closed
/// since.
///
/// # Errors
/// When the system gives no descriptors or no thread.
pub(super) fn start_reading<T: Send + 'static>(
    name: &'static str,
    given: Given,
    stdin_feeds: bool,
    into: fn(Box<Config>) -> T,
) -> shm_proto::Result<Work<T>> {
    let read = move |_: &AtomicBool| {
        let host = Host { stdin_feeds, ..Host::look() };
        let config = config::load(&given, &host);
        config.map(Box::new).map(into).map_err(|e| refusal(e.kind(), format!("nothing was changed: {e}")))
    };
    // It leaves nothing behind, and a name service that does not answer must not keep the daemon from stopping.
    Work::start(name, drop, read).map(Work::unawaited)
}

/// Starts the thread that makes the objects of `wanted`, which are new channels of the configuration.
///
/// # Errors
/// When the system gives no descriptors or no thread.
pub(super) fn start_making(
    config: Box<Config>,
    wanted: Vec<ChannelConfig>,
    owner: Owner,
) -> shm_proto::Result<Work<Step>> {
    let discard_step = |step: Step| {
        if let Step::Made(_, made) = step {
            discard(made)
        }
    };
    Work::start("reload", discard_step, move |ending| {
        let made = make_all(wanted, &config.prefix, owner, ending)?;
        Ok(Step::Made(config, made))
    })
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
