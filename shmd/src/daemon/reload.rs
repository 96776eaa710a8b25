//! Reading the configuration again, while everything goes on.
//!
//! First all that can fail: the files, their check, the new channels. Only then is anything changed.

use std::time::Duration;

use shm_proto::control::{Change, Done, ErrorKind, Refusal, Reloaded};

use super::Daemon;
use crate::channel::Channel;
use crate::config::{self, Config, SourceKind};
use crate::event_loop::ClientId;
use crate::host::Host;
use crate::hub::{is_master, refusal};
use crate::journal::{self, operation};
use crate::logging;

/// How long a peer that sits in the mutex of stale handoff objects is waited for: all channels stand still meanwhile, and the first
/// that does not let go ends the reload.
const PATIENCE: Duration = Duration::from_millis(50);
/// What readers of a removed channel are told.
const REMOVED: &str = "the channel was taken out of the configuration";

impl Daemon {
    /// A client asks for it.
    pub(super) fn reload_for(&mut self, id: ClientId) {
        let Some(peer) = self.hub.client(id).map(|client| client.credentials.clone()) else { return };
        let user = self.hub.user(peer.uid);
        let answer = if is_master(peer.uid) {
            self.reload(&user).map(Done::Reload)
        } else {
            let message = format!("user {user} may not reload the configuration; root and the daemon's own user may");
            Err(refusal(ErrorKind::NotPermitted, message))
        };
        self.hub.reply(id, answer, Vec::new());
    }

    /// Reads the configuration with the command line of the start, and takes over what can be.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub(super) fn reload(&mut self, by: &str) -> Result<Reloaded, Refusal> {
        self.manager.reloading();
        let result = self.take_over();
        match &result {
            Ok(done) => operation("reload")
                .text("by", by)
                .number("created", done.created.len())
                .number("removed", done.removed.len())
                .number("changed", done.changed.len())
                .number("kept", done.kept.len())
                .info(),
            Err(refusal) => operation("reload-failed").text("by", by).reason(&refusal.message).error(),
        }
        self.manager.ready(&super::summary(&self.channels));
        result
    }

    fn take_over(&mut self) -> Result<Reloaded, Refusal> {
        // Standard input is what it was at the start, whatever became of it since.
        let host = Host { stdin_feeds: self.origin.stdin_feeds, ..Host::look() };
        let config = config::load(&self.origin.given, &host)
            .map_err(|e| refusal(ErrorKind::BadConfig, format!("nothing was changed: {e}")))?;
        let new = self.create_new(&config)?;
        let mut done = Reloaded::default();
        let gone = self.channels.iter().map(|channel| channel.config().name.clone());
        done.removed = gone.filter(|name| !config.channels.iter().any(|channel| channel.name == *name)).collect();
        for name in &done.removed {
            self.channels.remove(&mut self.hub, name, REMOVED);
        }
        self.take_top(&config, &mut done);
        for channel in config.channels {
            if let Some(present) = self.channels.named(&channel.name) {
                let outcome = present.reconfigure(&mut self.hub, channel);
                done.changed.extend(outcome.changed);
                done.kept.extend(outcome.kept);
            }
        }
        // In the log already.
        let mut waiting = Vec::new();
        for mut channel in new {
            done.created.push(channel.config().name.clone());
            let taken = self.channels.is_source_leaving(&channel.config().source);
            if let Some(reason) = channel.start_source_or_retry(&mut self.hub, taken) {
                waiting.push(Change {
                    channel: Some(channel.config().name.clone()),
                    key: "source".to_owned(),
                    old: format!("{:?}", "none"),
                    new: format!("{:?}", channel.config().source.to_string()),
                    why: Some(format!("{reason}; it is tried again every second")),
                });
            }
            self.channels.add(channel);
        }
        for change in &done.changed {
            told("change", change).info();
        }
        for change in &done.kept {
            told("kept", change).warn();
        }
        done.kept.extend(waiting);
        self.keep_ticking();
        Ok(done)
    }

    /// The channels that are not there yet; all of them, or none.
    fn create_new(&mut self, config: &Config) -> Result<Vec<Channel>, Refusal> {
        let mut new = Vec::new();
        let made = self.create_each(config, &mut new);
        if let Err(refusal) = made {
            for channel in new {
                self.channels.discard(&mut self.hub, channel, "the reload that would have added the channel failed");
            }
            return Err(refusal);
        }
        self.stdin_taken |= new.iter().any(|channel| channel.config().source == SourceKind::Stdin);
        Ok(new)
    }

    fn create_each(&mut self, config: &Config, new: &mut Vec<Channel>) -> Result<(), Refusal> {
        for wanted in &config.channels {
            if self.channels.named(&wanted.name).is_some() {
                continue;
            }
            let refuse =
                |kind, why: String| Err(refusal(kind, format!("nothing was changed: channel {}: {why}", wanted.name)));
            if self.channels.is_leaving(&wanted.name) {
                return refuse(ErrorKind::Busy, "it is just being removed; try again in a second".to_owned());
            }
            if wanted.source == SourceKind::Stdin && self.stdin_taken {
                let why = "standard input has fed another channel already; restart shmd to change that".to_owned();
                return refuse(ErrorKind::BadConfig, why);
            }
            let id = self.channels.next_id();
            match Channel::create(id, wanted.clone(), &self.prefix, self.owner, &self.user, PATIENCE) {
                Ok(channel) => new.push(channel),
                Err(e) => return refuse(ErrorKind::NoSpace, e.to_string()),
            }
        }
        Ok(())
    }

    /// The keys outside channels.
    fn take_top(&mut self, config: &Config, done: &mut Reloaded) {
        let fixed = "it is fixed while shmd runs; restart it";
        let mut compare = |key: &str, old: String, new: String, why: Option<&str>| {
            if old != new {
                let why = why.map(str::to_owned);
                let list = if why.is_none() { &mut done.changed } else { &mut done.kept };
                list.push(Change { channel: None, key: key.to_owned(), old, new, why });
            }
        };
        let dir = |dir: &std::path::Path| format!("{:?}", dir.display().to_string());
        compare("runtime_dir", dir(&self.hub.runtime_dir), dir(&config.runtime_dir), Some(fixed));
        compare("prefix", format!("{:?}", self.prefix.as_str()), format!("{:?}", config.prefix.as_str()), Some(fixed));
        let level = |level: log::LevelFilter| format!("{:?}", level.as_str().to_ascii_lowercase());
        compare("log", level(log::max_level()), level(config.log), None);
        compare("max_clients", self.hub.most().to_string(), config.max_clients.to_string(), None);
        compare("log_entries", journal::kept().to_string(), config.log_entries.to_string(), None);
        logging::reload(config.log);
        self.hub.set_most(config.max_clients);
        journal::keep(config.log_entries);
    }
}

fn told(event: &'static str, change: &Change) -> journal::Operation {
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
