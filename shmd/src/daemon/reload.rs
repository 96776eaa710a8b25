//! Reading the configuration again, while everything goes on.
//!
//! First all that can fail: the files, their check, the objects of the new channels, which take time and are made by a
//! [`Preparation`]. Only then is anything changed.

use shm_proto::internal::control::{Change, Reloaded};
use shm_proto::{Bytes, ChannelName, Done, ErrorKind, Refusal};

use super::Daemon;
use super::preparation::Preparation;
use crate::channel::{Channel, Prepared};
use crate::client::Role;
use crate::config::{self, ChannelConfig, Config, SourceKind};
use crate::connections::{is_master, refusal};
use crate::descriptors;
use crate::event_loop::{ClientId, Interest, Token};
use crate::host::Host;
use crate::logging;
use crate::operation_log::{self, LogEvent, operation};

/// The reason for readers of a removed channel.
const REMOVED: &str = "the channel was taken out of the configuration";

impl Daemon {
    /// A client asks for it. It is answered when it is done.
    pub(super) fn reload_for(&mut self, id: ClientId) {
        let Some(peer) = self.connections.client(id).map(|client| client.credentials.clone()) else { return };
        let user = self.connections.user(peer.uid);
        let refused = if !is_master(peer.uid) {
            let message = format!("user {user} may not reload the configuration; root and the daemon's own user may");
            refusal(ErrorKind::NotPermitted, message)
        } else if let Some(present) = &self.reloading {
            let message = format!("a reload by {} is under way; try again when it is done", present.by);
            refusal(ErrorKind::Busy, message)
        } else if self.reexec.is_some() {
            refusal(ErrorKind::Busy, "a reexec is under way; try again when it is done")
        } else {
            if let Some(client) = self.connections.client(id) {
                client.role = Role::Waiting(None);
            }
            return self.begin_reload(Some(id), user);
        };
        self.connections.reply(id, Err(refused), Vec::new());
    }

    /// A signal asks for it. A signal that arrives during a reload asks for another one, because the files may have changed.
    pub(super) fn reload_on(&mut self, signal: &str) {
        if self.reloading.is_some() || self.reexec.is_some() {
            self.reload_again = Some(signal.to_owned());
        } else {
            self.begin_reload(None, signal.to_owned());
        }
    }

    /// Reads the configuration with the command line of the start, and takes over what can be.
    fn begin_reload(&mut self, client: Option<ClientId>, by: String) {
        self.manager.reloading();
        // Whatever becomes of the reload: the file was rotated, and the log says there what is wrong with the configuration.
        logging::reopen();
        let result = match self.plan() {
            Ok((config, wanted)) if wanted.is_empty() => self.take_over(config, Vec::new()),
            Ok((config, wanted)) => {
                let begun =
                    Preparation::start(config, wanted, self.owner, client, by.clone()).and_then(|preparation| {
                        self.connections.events.add(preparation.making.bell(), Token::Preparation, Interest::READ)?;
                        Ok(preparation)
                    });
                match begun {
                    Ok(preparation) => {
                        self.reloading = Some(preparation);
                        return;
                    }
                    Err(e) => Err(refusal(ErrorKind::Internal, format!("nothing was changed: {e}"))),
                }
            }
            Err(refusal) => Err(refusal),
        };
        self.end_reload(client, &by, result);
    }

    /// The objects of the new channels exist, or could not be made.
    pub(super) fn reload_ready(&mut self) {
        let Some(made) = self.reloading.as_mut().and_then(|preparation| preparation.making.take()) else { return };
        let Some(preparation) = self.reloading.take() else { return };
        self.connections.events.remove(preparation.making.bell());
        let (config, client, by) = (preparation.config.clone(), preparation.client, preparation.by.clone());
        let result = made.and_then(|prepared| self.take_over(config, prepared));
        self.end_reload(client, &by, result);
        if let Some(signal) = self.reload_again.take() {
            self.begin_reload(None, signal);
        }
    }

    /// Whether a reload is under way whose configuration has a channel of this name.
    pub(super) fn is_reloading(&self, name: &ChannelName) -> bool {
        let mut channels = self.reloading.iter().flat_map(|preparation| &preparation.config.channels);
        channels.any(|channel| channel.name == *name)
    }

    /// Gives the present reload up; `why` is for the client that waits for it.
    pub(super) fn give_reload_up(&mut self, why: &str) {
        if let Some(preparation) = self.reloading.take() {
            self.connections.events.remove(preparation.making.bell());
            let refused = refusal(ErrorKind::Busy, format!("nothing was changed: {why}"));
            self.end_reload(preparation.client, &preparation.by, Err(refused));
        }
    }

    fn end_reload(&mut self, client: Option<ClientId>, by: &str, result: Result<Reloaded, Refusal>) {
        match &result {
            Ok(done) => operation(LogEvent::Reload)
                .text("by", by)
                .number("created", done.created.len())
                .number("removed", done.removed.len())
                .number("changed", done.changed.len())
                .number("kept", done.kept.len())
                .info(),
            Err(refusal) => operation(LogEvent::ReloadFailed).text("by", by).reason(&refusal.message).error(),
        }
        self.manager.ready(&super::summary(&self.channels));
        if let Some(client) = client {
            self.connections.reply(client, result.map(Done::Reload), Vec::new());
        }
    }

    /// The new configuration, and the channels in it that are not there yet.
    fn plan(&self) -> Result<(Config, Vec<ChannelConfig>), Refusal> {
        // As it was at the start: standard input may have been closed since.
        let host = Host { stdin_feeds: self.origin.stdin_feeds, ..Host::look() };
        let config = config::load(&self.origin.given, &host)
            .map_err(|e| refusal(e.kind(), format!("nothing was changed: {e}")))?;
        let is_present = |name: &ChannelName| self.channels.iter().any(|channel| channel.config().name == *name);
        let mut wanted = Vec::new();
        for channel in config.channels.iter().filter(|channel| !is_present(&channel.name)) {
            let refuse =
                |kind, why: &str| Err(refusal(kind, format!("nothing was changed: channel {}: {why}", channel.name)));
            if self.channels.is_leaving(&channel.name) {
                return refuse(ErrorKind::Busy, "it is just being removed; try again in a second");
            }
            if self.creations.is_making(&channel.name) {
                return refuse(ErrorKind::Busy, "a user is just creating it; try again in a second");
            }
            if channel.source == SourceKind::Stdin && self.stdin_taken {
                let why = "standard input has fed another channel already; restart shmd to change that";
                return refuse(ErrorKind::BadConfig, why);
            }
            let mut created = self.channels.iter().map(Channel::config).filter(|other| other.created.is_some());
            let conflict =
                |other: &ChannelConfig| Some((channel.conflict_with(other, &self.prefix)?, other.name.clone()));
            if let Some((why, other)) = created.find_map(conflict) {
                let why = format!(
                    "{why}, and {other} was created at run time; remove it (shmctl remove {other}), or change the configuration"
                );
                return refuse(ErrorKind::BadConfig, &why);
            }
            wanted.push(channel.clone());
        }
        Ok((config, wanted))
    }

    /// Takes the configuration over, with the objects of its new channels.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn take_over(&mut self, config: Config, prepared: Vec<Prepared>) -> Result<Reloaded, Refusal> {
        let new = self.create_new(prepared)?;
        let mut done = Reloaded::default();
        // Those that were made at run time stay.
        let configured = self.channels.iter().map(Channel::config).filter(|channel| channel.created.is_none());
        let gone = configured.map(|channel| channel.name.clone());
        done.removed = gone.filter(|name| !config.channels.iter().any(|channel| channel.name == *name)).collect();
        for name in &done.removed {
            self.channels.remove(&mut self.connections, name, REMOVED);
        }
        self.take_top(&config, &mut done);
        let created = self.channels.iter().map(Channel::config).filter(|channel| channel.created.is_some());
        let created = created.filter(|channel| !config.channels.iter().any(|other| other.name == channel.name));
        descriptors::look(&config.channels.iter().chain(created).cloned().collect::<Vec<_>>());
        for channel in config.channels {
            if let Some(present) = self.channels.named(&channel.name) {
                if let Some(created) = &present.config().created {
                    self.creations.configured(&channel.name, created);
                }
                let outcome = present.reconfigure(&mut self.connections, channel);
                done.changed.extend(outcome.changed);
                done.kept.extend(outcome.kept);
            }
        }
        // In the log already.
        let mut waiting = Vec::new();
        for mut channel in new {
            done.created.push(channel.config().name.clone());
            let taken = self.channels.is_source_leaving(&channel.config().source);
            if let Some(reason) = channel.start_source_or_retry(&mut self.connections, taken) {
                let (old, new) = (format!("{:?}", "none"), format!("{:?}", channel.config().source.to_string()));
                let why = format!("{reason}; the daemon tries again every second");
                waiting.push(Change::new(Some(channel.config().name.clone()), "source", old, new, Some(why)));
            }
            self.channels.add(channel);
        }
        for change in &done.changed {
            told(LogEvent::Change, change).info();
        }
        for change in &done.kept {
            told(LogEvent::Kept, change).warn();
        }
        done.kept.extend(waiting);
        self.keep_ticking();
        Ok(done)
    }

    /// The new channels; all of them, or none.
    fn create_new(&mut self, prepared: Vec<Prepared>) -> Result<Vec<Channel>, Refusal> {
        let mut new = Vec::new();
        for prepared in prepared {
            let name = prepared.name().clone();
            match Channel::create(self.channels.next_id(), prepared, &self.user) {
                Ok(channel) => new.push(channel),
                Err(e) => {
                    for channel in new {
                        let why = "the reload that would have added the channel failed";
                        self.channels.discard(&mut self.connections, channel, why);
                    }
                    return Err(refusal(ErrorKind::NoSpace, format!("nothing was changed: channel {name}: {e}")));
                }
            }
        }
        self.stdin_taken |= new.iter().any(|channel| channel.config().source == SourceKind::Stdin);
        Ok(new)
    }

    /// The keys outside channels.
    fn take_top(&mut self, config: &Config, done: &mut Reloaded) {
        let fixed = "it is fixed while shmd runs; restart it";
        let mut compare = |key: &str, old: String, new: String, why: Option<&str>| {
            if old != new {
                let why = why.map(str::to_owned);
                let list = if why.is_none() { &mut done.changed } else { &mut done.kept };
                list.push(Change::new(None, key, old, new, why));
            }
        };
        let dir = |dir: &std::path::Path| format!("{:?}", dir.display().to_string());
        compare("runtime_dir", dir(&self.connections.runtime_dir), dir(&config.runtime_dir), Some(fixed));
        compare("prefix", format!("{:?}", self.prefix.as_str()), format!("{:?}", config.prefix.as_str()), Some(fixed));
        let level = |level: log::LevelFilter| format!("{:?}", level.as_str().to_ascii_lowercase());
        compare("log", level(log::max_level()), level(config.log), None);
        compare("max_clients", self.connections.most().to_string(), config.max_clients.to_string(), None);
        compare("log_entries", operation_log::kept().to_string(), config.log_entries.to_string(), None);
        let state_dir = |at: &Option<std::path::PathBuf>| dir(at.as_deref().unwrap_or(std::path::Path::new("")));
        compare("state_dir", state_dir(&self.creations.state_dir), state_dir(&config.state_dir), Some(fixed));
        let (old, new) = (&self.creations.rules, &config.creation);
        compare("create", config::list(&old.may), config::list(&new.may), None);
        compare("max_created", old.most.to_string(), new.most.to_string(), None);
        let size = |bytes| format!("{:?}", Bytes(bytes).to_string());
        compare("max_created_memory", size(old.most_memory), size(new.most_memory), None);
        log::set_max_level(config.log);
        self.connections.set_most(config.max_clients);
        operation_log::keep(config.log_entries);
        self.creations.rules = config.creation.clone();
    }
}

fn told(event: LogEvent, change: &Change) -> operation_log::Operation {
    let about = operation(event);
    let about = match &change.channel {
        Some(channel) => about.on(channel),
        None => about,
    };
    let about = about.text("key", &change.key).text("old", &change.old).text("new", &change.new);
    match &change.why {
        Some(why) => about.reason(why),
        None => about,
    }
}
