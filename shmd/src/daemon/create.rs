//! Making channels while the daemon runs, for programs that ask for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use shm_proto::internal::control::Created as Answer;
use shm_proto::internal::os::peer::Credentials;
use shm_proto::{Bytes, ChannelName, Done, ErrorKind, Refusal};

use super::Daemon;
use super::creations::{Stage, Step, UnderWay};
use super::preparation::{PATIENCE, discard};
use super::work::Work;
use crate::admission::{Full, Held, Paced, place};
use crate::allotment::{Amount, Over, admit};
use crate::channel::{Channel, Prepared};
use crate::client::Role;
use crate::config::{self, ChannelConfig, Created};
use crate::connections::{channel_refusal, is_master, refusal};
use crate::descriptors;
use crate::event_loop::{ClientId, Interest, Token};
use crate::host::Host;
use crate::operation_log::{LogEvent, operation};

/// Most channels that are being made at the same time. One user has at most half of these places.
const MOST_AT_ONCE: u32 = 8;

impl Daemon {
    /// A client asks for a channel. It is answered when the channel is there.
    pub(super) fn create_for(&mut self, id: ClientId, name: &ChannelName, keys: BTreeMap<String, String>, kept: bool) {
        let Some(peer) = self.connections.client(id).map(|client| client.credentials.clone()) else { return };
        match self.begin_create(id, peer, name, keys, kept) {
            Ok(()) => {
                if let Some(client) = self.connections.client(id) {
                    client.role = Role::Waiting(None);
                }
            }
            Err(refused) => self.connections.reply(id, Err(refused), Vec::new()),
        }
    }

    /// Begins to read the keys, if the user may create a channel of this name now.
    fn begin_create(
        &mut self,
        client: ClientId,
        peer: Credentials,
        name: &ChannelName,
        keys: BTreeMap<String, String>,
        kept: bool,
    ) -> Result<(), Refusal> {
        let user = self.connections.user(peer.uid);
        if !self.creations.rules.may.allows(&peer) {
            let why = format!(
                "user {user} may not create channels; the administrator of the daemon can add \"{user}\" to create = [...] in \
                 shmd.toml"
            );
            return Err(channel_refusal(name, ErrorKind::NotPermitted, why));
        }
        self.connections.pace(name, peer.uid, Paced::Create)?;
        self.check_name(name)?;
        self.check_places(name, peer.uid, &user)?;
        self.creations.saved.shelf(kept).map_err(|why| channel_refusal(name, ErrorKind::Internal, why))?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let created = Arc::new(Created { uid: peer.uid, user, time_ms, kept, keys });
        let (wanted, asked, prefix) = (name.clone(), Arc::clone(&created), self.prefix.clone());
        let others = self.creations.saved.shelf(true).ok().filter(|_| !is_master(peer.uid)).cloned();
        let read = move |_: &AtomicBool| {
            let refuse = |kind, why: String| channel_refusal(&wanted, kind, why);
            let config =
                config::created(&wanted, asked, &Host::look(), &prefix).map_err(|e| refuse(e.kind(), e.to_string()))?;
            check_group(&config, &peer)?;
            let is_free = others.map_or(Ok(()), |kept| kept.check_creator(&wanted, peer.uid));
            is_free.map_err(|why| refuse(ErrorKind::ChannelExists, why))?;
            Ok(Box::new(config))
        };
        // It leaves nothing behind, and a name service that does not answer must not keep the daemon from stopping.
        let reading = Work::start("create", drop, read).map(Work::unawaited);
        let reading = reading.map_err(|e| channel_refusal(name, ErrorKind::Internal, e))?;
        self.watch_creation(client, name.clone(), created, Stage::Reads(reading))
    }

    /// Begins to make the objects of a channel, if the limits and the other channels leave room for it.
    fn begin_making(
        &mut self,
        client: ClientId,
        name: ChannelName,
        created: Arc<Created>,
        config: Box<ChannelConfig>,
    ) -> Result<(), Refusal> {
        self.check_others(&config)?;
        self.check_limits(&config, &created)?;
        let refuse = |why: String| channel_refusal(&config.name, ErrorKind::Internal, why);
        let shelf = self.creations.saved.shelf(created.kept).map_err(refuse)?.clone();
        let other = self.creations.saved.shelf(!created.kept).ok().cloned();
        let (wanted, record, prefix, owner) =
            ((*config).clone(), Arc::clone(&created), self.prefix.clone(), self.owner);
        let make = move |ending: &AtomicBool| {
            let name = wanted.name.clone();
            let prepared = Prepared::make(wanted, &prefix, owner, PATIENCE, ending)
                .map_err(|e| refusal(ErrorKind::NoSpace, e.to_string()))?;
            let saved = shelf.save(&name, &record).and_then(|()| {
                // An earlier start may have left a file there that it could make no channel of.
                let removed = other.map_or(Ok(()), |other| other.remove(&name));
                removed.inspect_err(|_| drop(shelf.remove(&name)))
            });
            match saved {
                Ok(()) => Ok(vec![prepared]),
                Err(why) => {
                    prepared.discard();
                    Err(channel_refusal(&name, ErrorKind::NoSpace, why))
                }
            }
        };
        let making = Work::start("create", discard, make).map_err(|e| refuse(e.to_string()))?;
        let kept = created.kept;
        self.watch_creation(client, name.clone(), created, Stage::Makes(config, making))
            // Its thread may have written the file.
            .inspect_err(|_| drop(self.creations.unsave(&name, kept)))
    }

    fn watch_creation(
        &mut self,
        client: ClientId,
        name: ChannelName,
        created: Arc<Created>,
        stage: Stage,
    ) -> Result<(), Refusal> {
        self.creations.number += 1;
        let number = self.creations.number;
        let watched = self.connections.events.add(stage.bell(), Token::Creation(number), Interest::READ);
        watched.map_err(|e| channel_refusal(&name, ErrorKind::Internal, e))?;
        self.creations.under_way.push(UnderWay { number, client, name, created, stage });
        Ok(())
    }

    /// That the name is free, and that nothing is under way that must not be disturbed.
    fn check_name(&self, name: &ChannelName) -> Result<(), Refusal> {
        let busy = |why: &str| Err(channel_refusal(name, ErrorKind::Busy, format!("{why}; try again in a second")));
        if let Some(present) = self.channels.iter().find(|channel| channel.config().name == *name) {
            let why = match &present.config().created {
                None => "it is there already, and it is the configuration's".to_owned(),
                Some(created) => format!("it is there already, created by {}", created.user),
            };
            return Err(channel_refusal(name, ErrorKind::ChannelExists, why));
        }
        if self.channels.is_leaving(name) {
            return busy("it is just being removed");
        }
        if self.creations.is_making(name) {
            return busy("it is just being created");
        }
        if self.is_reloading(name) {
            return busy("a reload is just creating it");
        }
        if self.reexec.is_some() {
            return busy("a reexec is under way");
        }
        Ok(())
    }

    /// That neither the user nor all users together have as many channels under way as they may.
    fn check_places(&self, name: &ChannelName, uid: u32, user: &str) -> Result<(), Refusal> {
        let creators = self.creations.under_way.iter().map(|creation| creation.created.uid);
        let taken = match place(Held::count(creators, uid, is_master), MOST_AT_ONCE, is_master(uid)) {
            Ok(()) => return Ok(()),
            Err(Full::Share(share)) => format!("{share} channels for user {user}, the most for one user"),
            Err(Full::All) => format!("{MOST_AT_ONCE} channels, the most"),
        };
        let why = format!("the daemon is creating {taken} at the same time; try again in a second");
        Err(channel_refusal(name, ErrorKind::Busy, why))
    }

    /// That no other channel has an object of the same name, or the source.
    fn check_others(&self, config: &ChannelConfig) -> Result<(), Refusal> {
        for other in self.channels.all().map(Channel::config).chain(self.creations.configs()) {
            let Some(why) = config.conflict_with(other, &self.prefix) else { continue };
            let (kind, what) = match config.common_object(other, &self.prefix) {
                Some(_) => (ErrorKind::ChannelExists, "name"),
                None => (ErrorKind::BadConfig, "source"),
            };
            return Err(channel_refusal(&config.name, kind, format!("{why}; choose another {what}")));
        }
        Ok(())
    }

    /// That neither the user nor all users together have too much.
    fn check_limits(&self, config: &ChannelConfig, created: &Created) -> Result<(), Refusal> {
        let uid = created.uid;
        if is_master(uid) {
            return Ok(());
        }
        let channels = self.channels.all().map(Channel::config).chain(self.creations.configs());
        let made = channels.filter_map(|channel| Some((channel.created.as_ref()?.uid, channel.max)));
        let made: Vec<(u32, u64)> = made.filter(|(uid, _)| !is_master(*uid)).collect();
        let all = Amount::of(made.iter().map(|(_, max)| *max));
        let own = Amount::of(made.iter().filter(|(by, _)| *by == uid).map(|(_, max)| *max));
        let most = Amount { channels: self.creations.rules.most, bytes: self.creations.rules.most_memory };
        admit(config.max, own, all, most).map_err(|over| {
            let (kind, why) = told(over, config.max, &created.user, own, all, most);
            channel_refusal(&config.name, kind, why)
        })
    }

    /// A stage of a channel that is being made is at its end.
    pub(super) fn creation_ready(&mut self, number: u32) {
        let under_way = &mut self.creations.under_way;
        let Some(at) = under_way.iter().position(|creation| creation.number == number) else { return };
        let Some(step) = under_way[at].stage.take() else { return };
        let UnderWay { client, name, created, stage, .. } = under_way.remove(at);
        self.connections.events.remove(stage.bell());
        let outcome = match step {
            Ok(Step::Read(config)) => self.begin_making(client, name, created, config).map(|()| None),
            Ok(Step::Made(prepared)) => self.serve_created(&name, &created, prepared).map(Some),
            Err(refused) => Err(refused),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(answer)) => self.connections.reply(client, Ok(Done::Create(answer)), Vec::new()),
            Err(refused) => {
                if let Some(config) = stage.config() {
                    let failed = operation(LogEvent::CreateFailed).on(&config.name);
                    let by = config.created.as_ref().map_or("", |created| &created.user);
                    failed.text("by", by).reason(&refused.message).warn();
                }
                self.connections.reply(client, Err(refused), Vec::new());
            }
        }
    }

    fn serve_created(
        &mut self,
        name: &ChannelName,
        created: &Created,
        prepared: Vec<Prepared>,
    ) -> Result<Answer, Refusal> {
        let mut answer = Answer::new(name.clone(), 0, 0);
        answer.kept = created.kept;
        for prepared in prepared {
            let mut channel = Channel::create(self.channels.next_id(), prepared, &self.user).map_err(|e| {
                let left = self.creations.unsave(name, created.kept).err().map(|e| format!("; {e}"));
                channel_refusal(name, ErrorKind::Internal, format!("{e}{}", left.unwrap_or_default()))
            })?;
            (answer.capacity, answer.max) = (channel.config().capacity, channel.config().max);
            let taken = self.channels.is_source_leaving(&channel.config().source);
            answer.source_waits = channel.start_source_or_retry(&mut self.connections, taken);
            self.channels.add(channel);
        }
        descriptors::look(&self.channels.iter().map(|channel| channel.config().clone()).collect::<Vec<_>>());
        self.keep_ticking();
        Ok(answer)
    }
}

/// That the user may give the objects to the channel's group.
fn check_group(config: &ChannelConfig, peer: &Credentials) -> Result<(), Refusal> {
    match &config.group {
        Some((group, gid)) if !is_master(peer.uid) && !peer.is_in_group(*gid) => {
            let user = config.created.as_ref().map_or("", |created| &created.user);
            let why = format!(
                "user {user} is not in group {group}, and only a member may give a channel to a group; name another group, or \
                 list who may read it (read)"
            );
            Err(channel_refusal(&config.name, ErrorKind::NotPermitted, why))
        }
        _ => Ok(()),
    }
}

/// Why a limit forbids a channel with this `max`: the numbers, and the ways out.
fn told(over: Over, max: u64, user: &str, own: Amount, all: Amount, most: Amount) -> (ErrorKind, String) {
    let (share, asked) = (most.share(), Bytes(max));
    let count = |n: u32| format!("{n} channel{}", if n == 1 { "" } else { "s" });
    let channels = format!("max_created = {}", most.channels);
    let memory = format!("max_created_memory = {}", Bytes(most.bytes));
    match over {
        Over::OwnChannels => (
            ErrorKind::TooMany,
            format!(
                "user {user} has created {}, and one user may have {} (half of {channels}); remove one (shmctl remove NAME), or \
                 the administrator of the daemon can raise max_created",
                count(own.channels),
                share.channels
            ),
        ),
        Over::AllChannels => (
            ErrorKind::TooMany,
            format!(
                "users have created {}, the most that there may be ({channels}); the administrator of the daemon can remove some, or \
                 raise max_created",
                count(all.channels)
            ),
        ),
        Over::OwnMemory => (
            ErrorKind::NoSpace,
            format!(
                "it may take {asked} (its max), and what user {user} has created may take {} already; the channels of one user may \
                 take {} (half of {memory}); choose a smaller max, remove a channel (shmctl remove NAME), or the administrator of \
                 the daemon can raise max_created_memory",
                Bytes(own.bytes),
                Bytes(share.bytes)
            ),
        ),
        Over::AllMemory => (
            ErrorKind::NoSpace,
            format!(
                "it may take {asked} (its max), and what users have created may take {} already, of {memory}; choose a smaller max, \
                 or the administrator of the daemon can remove channels, or raise max_created_memory",
                Bytes(all.bytes)
            ),
        ),
    }
}
