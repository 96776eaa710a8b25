//! Channels that are made at run time: the rules, their files, what is under way, and what an earlier daemon has left.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use shm_proto::internal::ring::Owner;
use shm_proto::{ChannelName, Prefix, Refusal};

use super::preparation::PATIENCE;
use super::work::Work;
use crate::channel::{Channel, Prepared};
use crate::channels::Channels;
use crate::config::{self, ChannelConfig, Config, Created, Creation};
use crate::event_loop::{ChannelId, ClientId};
use crate::host::Host;
use crate::notify;
use crate::operation_log::{LogEvent, operation};
use crate::saved_channels::{Found, SavedChannels};

/// A channel that is being made.
#[derive(Debug)]
pub(super) struct UnderWay {
    /// Of this stage.
    pub(super) number: u32,
    /// Who waits for it.
    pub(super) client: ClientId,
    pub(super) name: ChannelName,
    pub(super) created: Arc<Created>,
    pub(super) stage: Stage,
}

/// What is being done for it.
#[derive(Debug)]
pub(super) enum Stage {
    /// The keys are read. Users and groups in them may have to be looked up over a network.
    Reads(Work<Box<ChannelConfig>>),
    /// The objects are made, and the file is written.
    Makes(Box<ChannelConfig>, Work<Vec<Prepared>>),
}

/// What has come of a stage.
#[derive(Debug)]
pub(super) enum Step {
    Read(Box<ChannelConfig>),
    Made(Vec<Prepared>),
}

impl Stage {
    /// Readable when [`take`](Self::take) has something.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        match self {
            Stage::Reads(reading) => reading.bell(),
            Stage::Makes(_, making) => making.bell(),
        }
    }

    /// What has come of it, once it is at its end.
    pub(super) fn take(&mut self) -> Option<Result<Step, Refusal>> {
        match self {
            Stage::Reads(reading) => reading.take().map(|read| read.map(Step::Read)),
            Stage::Makes(_, making) => making.take().map(|made| made.map(Step::Made)),
        }
    }

    /// The channel whose objects are made.
    pub(super) fn config(&self) -> Option<&ChannelConfig> {
        match self {
            Stage::Reads(_) => None,
            Stage::Makes(config, _) => Some(config),
        }
    }
}

/// The rules for channels that are made at run time, their files, and what is under way.
#[derive(Debug)]
pub(super) struct Creations {
    pub(super) rules: Creation,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) saved: SavedChannels,
    pub(super) under_way: Vec<UnderWay>,
    /// The number of the newest.
    pub(super) number: u32,
    /// Clients that wait until a channel is gone.
    pub(super) removals: Vec<(ChannelId, ClientId)>,
}

impl Creations {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            rules: config.creation.clone(),
            state_dir: config.state_dir.clone(),
            saved: SavedChannels::new(&config.runtime_dir, config.state_dir.as_deref(), &config.prefix),
            under_way: Vec::new(),
            number: 0,
            removals: Vec::new(),
        }
    }

    /// Makes the channels again that an earlier daemon has left: all of a daemon that died, and otherwise those that are kept.
    /// If a channel cannot be made, the log has the reason, and its file stays for the next start.
    pub(super) fn restore(&self, channels: &mut Channels, prefix: &Prefix, owner: Owner, user: &str) {
        let host = Host::look();
        for Found { path, channel } in self.saved.found() {
            notify::alive();
            let failed = operation(LogEvent::CreateFailed).text("file", path.display());
            let (name, created) = match channel {
                Ok(found) => found,
                Err(reason) => {
                    failed.reason(reason).warn();
                    continue;
                }
            };
            let failed = failed.on(&name).text("by", &created.user);
            if let Some(present) = channels.named(&name) {
                let of = if present.config().created.is_none() { "the configuration" } else { "another file" };
                self.forget(&name, created.kept, &format!("{of} has a channel of this name"));
                continue;
            }
            let config = config::created(&name, created.into(), &host, prefix);
            let made = config.map_err(|e| e.to_string()).and_then(|config| {
                if let Some(why) = channels.iter().find_map(|other| config.conflict_with(other.config(), prefix)) {
                    return Err(why);
                }
                let prepared = Prepared::make(config, prefix, owner, PATIENCE, &AtomicBool::new(false));
                let made = prepared.and_then(|prepared| Channel::create(channels.next_id(), prepared, user));
                made.map_err(|e| e.to_string())
            });
            match made {
                Ok(channel) => channels.add(channel),
                Err(reason) => failed.reason(reason).warn(),
            }
        }
    }

    /// The daemon is ready.
    pub(super) fn is_ready(&mut self) {
        self.saved.is_ready();
    }

    /// Whether a channel of this name is being made.
    pub(super) fn is_making(&self, name: &ChannelName) -> bool {
        self.under_way.iter().any(|creation| creation.name == *name)
    }

    /// The channels whose objects are being made.
    pub(super) fn configs(&self) -> impl Iterator<Item = &ChannelConfig> {
        self.under_way.iter().filter_map(|creation| creation.stage.config())
    }

    /// Whether any channel is being made.
    pub(super) fn are_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// The configuration has a channel of this name from now on.
    pub(super) fn configured(&self, name: &ChannelName, created: &Created) {
        self.forget(name, created.kept, "the configuration has a channel of this name");
    }

    /// The channel is not made again.
    fn forget(&self, name: &ChannelName, kept: bool, reason: &str) {
        match self.unsave(name, kept) {
            Ok(()) => operation(LogEvent::Forget).on(name).reason(reason).info(),
            Err(e) => operation(LogEvent::UnlinkFailed).on(name).reason(e).warn(),
        }
    }

    /// Removes the channel's file.
    ///
    /// # Errors
    /// What cannot be removed, and why.
    pub(super) fn unsave(&self, name: &ChannelName, kept: bool) -> Result<(), String> {
        self.saved.shelf(kept).map_or(Ok(()), |shelf| shelf.remove(name))
    }
}
