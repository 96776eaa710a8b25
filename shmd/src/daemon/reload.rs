//! Reading the configuration again, while everything goes on.
//!
//! First all that can fail: the files, their check, the objects of the new channels. What takes time of it is done by a
//! [`Preparation`]. Only then is anything changed.

use shm_proto::internal::control::{Change, Reloaded};
use shm_proto::{Bytes, ChannelName, Done, ErrorKind, Refusal};

use super::preparation::{self, Preparation, Step, Wanted};
use super::work::Work;
use super::{Daemon, Origin};
use crate::channel::{Channel, Prepared};
use crate::client::Role;
use crate::config::{self, ChannelConfig, Config, SourceKind};
use crate::connections::{is_master, refusal};
use crate::descriptors;
use crate::event_loop::{ClientId, Interest, Token};
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
        } else if self.reexec.is_some() {
            refusal(ErrorKind::Busy, "a reexec is under way; try again when it is done")
        } else {
            if let Some(client) = self.connections.client(id) {
                client.role = Role::Waiting(None);
            }
            return self.want_reload(user, Some(id));
        };
        self.connections.reply(id, Err(refused), Vec::new());
    }

    /// A signal asks for it.
    pub(super) fn reload_on(&mut self, signal: &str) {
        self.want_reload(signal.to_owned(), None);
    }

    /// Who asks during a reload asks for another one, because the files may have changed: one for all who ask until then.
    fn want_reload(&mut self, by: String, client: Option<ClientId>) {
        let wanted = self.reload_again.get_or_insert_with(|| Wanted { by: String::new(), clients: Vec::new() });
        wanted.by = by;
        wanted.clients.extend(client);
        self.reload_if_wanted();
    }

    /// Begins what is wanted, unless something else is under way.
    pub(super) fn reload_if_wanted(&mut self) {
        if self.stopping.is_none()
            && self.reloading.is_none()
            && self.reexec.is_none()
            && let Some(wanted) = self.reload_again.take()
        {
            self.begin_reload(wanted);
        }
    }

    /// Begins to read the configuration, with the command line of the start.
    fn begin_reload(&mut self, wanted: Wanted) {
        self.manager.reloading();
        // Whatever becomes of the reload: the file was rotated, and the log says there what is wrong with the configuration.
        logging::reopen();
        let Origin { given, stdin_feeds, .. } = &self.origin;
        let reading = preparation::start_reading("reload", given.clone(), *stdin_feeds, Step::Read);
        self.go_on_reload(wanted, Vec::new(), reading);
    }

    /// Waits for what comes of the work.
    fn go_on_reload(&mut self, wanted: Wanted, names: Vec<ChannelName>, work: shm_proto::Result<Work<Step>>) {
        let watched = work.and_then(|work| {
            self.connections.events.add(work.bell(), Token::Preparation, Interest::READ)?;
            Ok(work)
        });
        match watched {
            Ok(work) => self.reloading = Some(Preparation { wanted, names, work }),
            Err(e) => {
                let refused = refusal(ErrorKind::Internal, format!("nothing was changed: {e}"));
                self.end_reload(wanted, Err(refused));
            }
        }
    }

    /// The configuration is read, or the objects of its new channels exist, or neither could be done.
    pub(super) fn reload_ready(&mut self) {
        let Some(step) = self.reloading.as_mut().and_then(|preparation| preparation.work.take()) else { return };
        let Some(Preparation { wanted, work, .. }) = self.reloading.take() else { return };
        self.connections.events.remove(work.bell());
        let result = match step {
            Ok(Step::Read(config)) => match self.new_channels(&config) {
                Ok(new) if new.is_empty() => self.take_over(*config, Vec::new()),
                Ok(new) => {
                    let names = config.channels.iter().map(|channel| channel.name.clone()).collect();
                    let making = preparation::start_making(config, new, self.owner);
                    return self.go_on_reload(wanted, names, making);
                }
                Err(refused) => Err(refused),
            },
            Ok(Step::Made(config, prepared)) => self.take_over(*config, prepared),
            Err(refused) => Err(refused),
        };
        self.end_reload(wanted, result);
    }

    /// Whether a reload is under way whose configuration has a channel of this name.
    pub(super) fn is_reloading(&self, name: &ChannelName) -> bool {
        self.reloading.as_ref().is_some_and(|preparation| preparation.names.contains(name))
    }

    /// Gives up the present reload and the one that is wanted after it; `why` is for the clients that wait.
    pub(super) fn give_reload_up(&mut self, why: &str) {
        if let Some(preparation) = self.reloading.take() {
            self.connections.events.remove(preparation.work.bell());
            let mut wanted = preparation.wanted;
            wanted.clients.extend(self.reload_again.take().into_iter().flat_map(|again| again.clients));
            let refused = refusal(ErrorKind::Busy, format!("nothing was changed: {why}"));
            self.end_reload(wanted, Err(refused));
        }
    }

    fn end_reload(&mut self, Wanted { by, clients }: Wanted, result: Result<Reloaded, Refusal>) {
        match &result {
            Ok(done) => operation(LogEvent::Reload)
                .text("by", &by)
                .number("created", done.created.len())
                .number("removed", done.removed.len())
                .number("changed", done.changed.len())
                .number("kept", done.kept.len())
                .info(),
            Err(refusal) => operation(LogEvent::ReloadFailed).text("by", &by).reason(&refusal.message).error(),
        }
        self.manager.ready(&super::summary(&self.channels));
        for client in clients {
            self.connections.reply(client, result.clone().map(Done::Reload), Vec::new());
        }
        self.reload_if_wanted();
    }

    /// The channels of the new configuration that are not there yet.
    fn new_channels(&self, config: &Config) -> Result<Vec<ChannelConfig>, Refusal> {
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
        Ok(wanted)
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
