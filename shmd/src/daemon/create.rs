//! Making channels while the daemon runs, for programs that ask for them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use shm_proto::internal::control::Created as Answer;
use shm_proto::internal::os::peer::Credentials;
use shm_proto::{Bytes, ChannelName, Done, ErrorKind, Refusal};

use super::Daemon;
use super::creations::UnderWay;
use super::preparation::{Making, PATIENCE};
use crate::admission::Paced;
use crate::allotment::{Amount, Over, admit};
use crate::channel::{Channel, Prepared};
use crate::client::Role;
use crate::config::{self, ChannelConfig, Created};
use crate::connections::{channel_refusal, is_master, refusal};
use crate::descriptors;
use crate::event_loop::{ClientId, Interest, Token};
use crate::host::Host;
use crate::operation_log::{LogEvent, operation};

/// Most channels that are being made at the same time.
const MOST_AT_ONCE: usize = 8;

impl Daemon {
    /// A client asks for a channel. It is answered when the channel is there.
    pub(super) fn create_for(&mut self, id: ClientId, name: &ChannelName, keys: BTreeMap<String, String>, kept: bool) {
        let Some(peer) = self.connections.client(id).map(|client| client.credentials.clone()) else { return };
        match self.begin_create(id, &peer, name, keys, kept) {
            Ok(()) => {
                if let Some(client) = self.connections.client(id) {
                    client.role = Role::Waiting(None);
                }
            }
            Err(refused) => self.connections.reply(id, Err(refused), Vec::new()),
        }
    }

    fn begin_create(
        &mut self,
        client: ClientId,
        peer: &Credentials,
        name: &ChannelName,
        keys: BTreeMap<String, String>,
        kept: bool,
    ) -> Result<(), Refusal> {
        let user = self.connections.user(peer.uid);
        if !self.creations.rules.may.allows(peer) {
            let why = format!(
                "user {user} may not create channels; the administrator of the daemon can add \"{user}\" to create = [...] in \
                 shmd.toml"
            );
            return Err(channel_refusal(name, ErrorKind::NotPermitted, why));
        }
        // Before users and groups are looked up.
        self.connections.pace(name, peer.uid, Paced::Create)?;
        self.check_name(name)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let created = Created { uid: peer.uid, user: user.clone(), time_ms, kept, keys };
        let record = created.clone();
        let config = config::created(name, created, &Host::look(), &self.prefix)
            .map_err(|e| channel_refusal(name, ErrorKind::BadConfig, e))?;
        check_group(&config, peer, &user)?;
        self.check_source(&config)?;
        self.check_limits(&config, peer.uid, &user)?;
        let refuse = |why: String| channel_refusal(name, ErrorKind::Internal, why);
        let shelf = self.creations.saved.shelf(kept).map_err(refuse)?;
        let other = self.creations.saved.shelf(!kept);
        let (wanted, prefix, owner) = (config.clone(), self.prefix.clone(), self.owner);
        let make = move |ending: &AtomicBool| {
            let name = wanted.name.clone();
            let prepared = Prepared::make(wanted, &prefix, owner, PATIENCE, ending)
                .map_err(|e| refusal(ErrorKind::NoSpace, e.to_string()))?;
            // An earlier start may have left a file there that it could make no channel of.
            let saved = other.map_or(Ok(()), |other| other.remove(&name)).and_then(|()| shelf.save(&name, &record));
            match saved {
                Ok(()) => Ok(vec![prepared]),
                Err(why) => {
                    prepared.discard();
                    Err(channel_refusal(&name, ErrorKind::NoSpace, why))
                }
            }
        };
        let making = Making::start("create", make).map_err(|e| refuse(e.to_string()))?;
        self.creations.number += 1;
        let number = self.creations.number;
        let watched = self.connections.events.add(making.bell(), Token::Creation(number), Interest::READ);
        watched.map_err(|e| refuse(e.to_string()))?;
        self.creations.under_way.push(UnderWay { number, client, config, making });
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
        let mut reloading = self.reloading.iter().flat_map(|preparation| &preparation.config.channels);
        if reloading.any(|channel| channel.name == *name) {
            return busy("a reload is just creating it");
        }
        if self.reexec.is_some() {
            return busy("a reexec is under way");
        }
        if self.creations.under_way.len() >= MOST_AT_ONCE {
            return busy("the daemon is just creating as many channels as it does at the same time");
        }
        Ok(())
    }

    /// That no other channel has the source.
    fn check_source(&self, config: &ChannelConfig) -> Result<(), Refusal> {
        let making = self.creations.under_way.iter().map(|making| &making.config);
        let mut others = self.channels.iter().map(Channel::config).chain(making);
        let same = |other: &&ChannelConfig| other.source.object() == config.source.object();
        match others.find(|other| config.source.exclusive() && same(other)) {
            None => Ok(()),
            Some(other) => {
                let why = format!("source {} feeds channel {} already; choose another one", config.source, other.name);
                Err(channel_refusal(&config.name, ErrorKind::BadConfig, why))
            }
        }
    }

    /// That neither the user nor all users together have too much.
    fn check_limits(&self, config: &ChannelConfig, uid: u32, user: &str) -> Result<(), Refusal> {
        if is_master(uid) {
            return Ok(());
        }
        let making = self.creations.under_way.iter().map(|making| &making.config);
        let channels = self.channels.all().map(Channel::config).chain(making);
        let made = channels.filter_map(|channel| Some((channel.created.as_ref()?.uid, channel.max)));
        let made: Vec<(u32, u64)> = made.filter(|(uid, _)| !is_master(*uid)).collect();
        let all = Amount::of(made.iter().map(|(_, max)| *max));
        let own = Amount::of(made.iter().filter(|(by, _)| *by == uid).map(|(_, max)| *max));
        let most = Amount { channels: self.creations.rules.most, bytes: self.creations.rules.most_memory };
        admit(config.max, own, all, most).map_err(|over| {
            let (kind, why) = told(over, config.max, user, own, all, most);
            channel_refusal(&config.name, kind, why)
        })
    }

    /// The objects of a channel exist, or could not be made.
    pub(super) fn creation_ready(&mut self, number: u32) {
        let under_way = &mut self.creations.under_way;
        let Some(at) = under_way.iter().position(|making| making.number == number) else { return };
        let Some(made) = under_way[at].making.take() else { return };
        let UnderWay { client, config, making, .. } = under_way.remove(at);
        self.connections.events.remove(making.bell());
        let result = made.and_then(|prepared| self.serve_created(&config, prepared));
        if let (Err(refused), Some(created)) = (&result, &config.created) {
            let failed = operation(LogEvent::CreateFailed).on(&config.name).text("by", &created.user);
            failed.reason(&refused.message).warn();
        }
        self.connections.reply(client, result.map(Done::Create), Vec::new());
    }

    fn serve_created(&mut self, config: &ChannelConfig, prepared: Vec<Prepared>) -> Result<Answer, Refusal> {
        let kept = config.created.as_ref().is_some_and(|created| created.kept);
        let mut answer = Answer::new(config.name.clone(), config.capacity, config.max);
        answer.kept = kept;
        for prepared in prepared {
            let mut channel = Channel::create(self.channels.next_id(), prepared, &self.user).map_err(|e| {
                let left = self.creations.unsave(&config.name, kept).err().map(|e| format!("; {e}"));
                channel_refusal(&config.name, ErrorKind::Internal, format!("{e}{}", left.unwrap_or_default()))
            })?;
            let taken = self.channels.is_source_leaving(&config.source);
            answer.source_waits = channel.start_source_or_retry(&mut self.connections, taken);
            self.channels.add(channel);
        }
        descriptors::look(&self.channels.iter().map(|channel| channel.config().clone()).collect::<Vec<_>>());
        self.keep_ticking();
        Ok(answer)
    }
}

/// That the user may give the objects to the channel's group.
fn check_group(config: &ChannelConfig, peer: &Credentials, user: &str) -> Result<(), Refusal> {
    match &config.group {
        Some((group, gid)) if !is_master(peer.uid) && !peer.is_in_group(*gid) => {
            let why = format!(
                "user {user} is not in group {group}, and only a member may give a channel to a group; name another group, or \
                 list who may read it (read)"
            );
            Err(channel_refusal(&config.name, ErrorKind::NotPermitted, why))
        }
        _ => Ok(()),
    }
}

/// Why there may not be one more channel of so many bytes, with the numbers and the ways out.
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
