//! From a request to the channel's method: which channel is meant, and whether the peer may do that.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use shm_proto::internal::control::stat::Right;
use shm_proto::internal::control::{Declared, Pong};
use shm_proto::internal::os::peer::Credentials;
use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::{ChannelName, Done, ErrorKind, Expected, Prefix, Refusal, Request};

use crate::admission::Paced;
use crate::channel::Channel;
use crate::client::Role;
use crate::config::Created;
use crate::connections::{Connections, channel_refusal, is_master, later};
use crate::event_loop::{ChannelId, ClientId};
use crate::given::Given;
use crate::operation_log::{LogEvent, operation};

/// A client that asks for a schema before it has read its last answer may ask again after this time.
const UNTAKEN: Duration = Duration::from_millis(10);

/// What a peer needs a right for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Read,
    Write,
    Admin,
}

impl Need {
    const ALL: [Need; 3] = [Need::Read, Need::Write, Need::Admin];

    fn right(self) -> Right {
        match self {
            Need::Read => Right::Read,
            Need::Write => Right::Write,
            Need::Admin => Right::Admin,
        }
    }

    fn of(self, channel: &Channel, peer: &Credentials) -> bool {
        let config = channel.config();
        match self {
            Need::Read => config.read.allows(peer),
            Need::Write => config.write.allows(peer),
            Need::Admin => config.admin.allows(peer),
        }
    }
}

/// Carries a request out. It is answered now or, where memory or readers are waited for, later.
pub(crate) fn handle(
    connections: &mut Connections,
    channels: &mut [Channel],
    prefix: &Prefix,
    id: ClientId,
    request: Request,
    given: Given,
) {
    let Some(client) = connections.client(id) else { return };
    let peer = client.credentials.clone();
    let outcome = match request {
        Request::Ping => {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Ok(Some(Done::Ping(Pong::new(version, std::process::id(), prefix.to_string()))))
        }
        Request::List => Ok(Some(list(channels, &peer))),
        Request::Stat { channel } => stat_of(connections, channels, channel.as_ref(), &peer).map(Some),
        Request::Schema { channel } => match schema_of(connections, channels, channel.as_ref(), id, &peer) {
            Ok((declared, fds)) => return connections.reply(id, Ok(Done::Schema(declared)), fds),
            Err(refused) => Err(refused),
        },
        Request::Attach { channel, program, layout, expect } => {
            find(connections, channels, channel.as_ref(), &peer, Need::Read).and_then(|channel| {
                if channel.is_ring() {
                    check_layout(channel, layout)?;
                }
                check_content(channel, expect.as_ref())?;
                if let Some(why) = shut_out(channel, &peer) {
                    return Err(channel_refusal(&channel.config().name, ErrorKind::NotPermitted, why));
                }
                channel.attach(connections, id, program.as_deref()).map(|()| None)
            })
        }
        Request::Publish { channel, program, layout, expect } => {
            find(connections, channels, channel.as_ref(), &peer, Need::Write).and_then(|channel| {
                check_layout(channel, layout)?;
                check_content(channel, expect.as_ref())?;
                connections.pace(&channel.config().name, peer.uid, Paced::Borrow)?;
                channel.ring_mut().lend(connections, id, program.as_deref()).map(|()| None)
            })
        }
        Request::ResumeReader { channel, program, layout, expect, instance, moves } => {
            find(connections, channels, Some(&channel), &peer, Need::Read).and_then(|channel| {
                check_layout(channel, layout)?;
                check_content(channel, expect.as_ref())?;
                let [page] = given.memory()?;
                channel.resume(connections, id, program.as_deref(), (instance, moves, page)).map(|()| None)
            })
        }
        Request::ResumeWriter { channel, program, layout, expect, instance, capacity } => {
            find(connections, channels, Some(&channel), &peer, Need::Write).and_then(|channel| {
                check_layout(channel, layout)?;
                check_content(channel, expect.as_ref())?;
                connections.pace(&channel.config().name, peer.uid, Paced::Borrow)?;
                let (ring, place) = (channel.ring_mut(), (instance, capacity));
                let given = given.memory()?;
                ring.resume_writer(connections, id, program.as_deref(), place, given).map(|()| None)
            })
        }
        Request::Evict { channel, reader } => find(connections, channels, channel.as_ref(), &peer, Need::Admin)
            .and_then(|channel| {
                let by = connections.user(peer.uid);
                channel.evict(connections, reader, &by).map(|()| Some(Done::Evict {}))
            }),
        // The daemon as a whole answers these.
        Request::Create { .. }
        | Request::Remove { .. }
        | Request::Reload
        | Request::Reexec
        | Request::Log { .. }
        | Request::Unknown => return,
        Request::Resize { channel, bytes } => find(connections, channels, channel.as_ref(), &peer, Need::Admin)
            .and_then(|channel| {
                connections.pace(&channel.config().name, peer.uid, Paced::Resize)?;
                if let Some(client) = connections.client(id) {
                    client.role = Role::Waiting(Some(channel.id()));
                }
                channel.resize(connections, id, bytes);
                Ok(None)
            }),
    };
    match outcome {
        Ok(Some(done)) => connections.reply(id, Ok(done), Vec::new()),
        Ok(None) => {}
        Err(refusal) => connections.reply(id, Err(refusal), Vec::new()),
    }
}

/// Refuses a program that does not understand the layout of the channel's segment. Given the segment, it could only report that it
/// is broken, and the daemon would replace it.
fn check_layout(channel: &Channel, layout: u32) -> Result<(), Refusal> {
    if layout == LAYOUT_VERSION {
        return Ok(());
    }
    let release = env!("CARGO_PKG_VERSION");
    let why = format!(
        "its segment has layout {LAYOUT_VERSION}, and the program understands layout {layout}; use a program and a daemon of the \
         same release (this is shmd {release})"
    );
    Err(channel_refusal(&channel.config().name, ErrorKind::BadVersion, why))
}

/// Refuses a program that expects other messages than the channel declares.
fn check_content(channel: &Channel, expected: Option<&Expected>) -> Result<(), Refusal> {
    let config = channel.config();
    let why = expected.and_then(|expected| expected.mismatch(config.declared.content.as_ref()));
    why.map_or(Ok(()), |why| Err(channel_refusal(&config.name, ErrorKind::OtherContent, why)))
}

/// What a channel declares, with the text of its schema, for a peer that may know of the channel.
fn schema_of(
    connections: &mut Connections,
    channels: &[Channel],
    name: Option<&ChannelName>,
    id: ClientId,
    peer: &Credentials,
) -> Result<(Declared, Vec<OwnedFd>), Refusal> {
    let channel = &channels[position(channels, name, peer)?];
    if !may_see(channel, peer) {
        return Err(not_permitted(connections, channel, peer, Need::Read));
    }
    let config = channel.config();
    connections.pace(&config.name, peer.uid, Paced::Schema)?;
    if !is_master(peer.uid) && connections.client(id).is_some_and(|client| client.has_untaken()) {
        let why = "the connection has not taken its last answer, in which a descriptor may lie; read it, and try again";
        return Err(later(&config.name, why, UNTAKEN));
    }
    let text = config.declared.text.as_ref().map(|text| text.descriptor()).transpose();
    let text = text.map_err(|e| channel_refusal(&config.name, ErrorKind::Internal, e))?;
    Ok((Declared::new(config.declared.content.clone()), text.into_iter().collect()))
}

/// What this peer can do, by the channel's lists and by the permissions of the objects that it has to open itself.
fn rights(channel: &Channel, peer: &Credentials) -> Vec<Right> {
    let can = |right: &Need| right.of(channel, peer) && (*right != Need::Read || shut_out(channel, peer).is_none());
    Need::ALL.into_iter().filter(can).map(|right| right.right()).collect()
}

/// Why a peer in the `read` list of a handoff channel still cannot read it.
fn shut_out(channel: &Channel, peer: &Credentials) -> Option<String> {
    // The objects belong to the user that the daemon runs as.
    channel.shuts_out(geteuid().as_raw(), peer)
}

/// Whether this peer may know of the channel.
pub(crate) fn may_see(channel: &Channel, peer: &Credentials) -> bool {
    Need::ALL.into_iter().any(|right| right.of(channel, peer))
}

fn list(channels: &[Channel], peer: &Credentials) -> Done {
    let visible = channels.iter().filter(|channel| may_see(channel, peer));
    Done::List(visible.map(|channel| channel.summary(rights(channel, peer))).collect())
}

fn stat_of(
    connections: &mut Connections,
    channels: &[Channel],
    name: Option<&ChannelName>,
    peer: &Credentials,
) -> Result<Done, Refusal> {
    let wanted: Vec<&Channel> = match name {
        None => channels.iter().filter(|channel| may_see(channel, peer)).collect(),
        Some(_) => {
            let at = position(channels, name, peer)?;
            if !may_see(&channels[at], peer) {
                return Err(not_permitted(connections, &channels[at], peer, Need::Read));
            }
            vec![&channels[at]]
        }
    };
    let total = channels.iter().map(Channel::memory).sum();
    let mut stats = Vec::with_capacity(wanted.len());
    for channel in wanted {
        match channel.stat(total) {
            Ok(stat) => stats.push(stat),
            // One broken channel must not hide the others.
            Err(e) if name.is_none() => operation(LogEvent::Broken).on(&channel.config().name).reason(e).warn(),
            Err(e) => return Err(channel_refusal(&channel.config().name, ErrorKind::Internal, e)),
        }
    }
    Ok(Done::Stat(stats))
}

/// The channel that is meant, if this peer has the right.
fn find<'a>(
    connections: &mut Connections,
    channels: &'a mut [Channel],
    name: Option<&ChannelName>,
    peer: &Credentials,
    right: Need,
) -> Result<&'a mut Channel, Refusal> {
    let at = position(channels, name, peer)?;
    let channel = &mut channels[at];
    if right.of(channel, peer) { Ok(channel) } else { Err(not_permitted(connections, channel, peer, right)) }
}

/// The channel that a peer may remove, and who has made it.
///
/// # Errors
/// That there is no such channel, that the peer may not, or that the channel is in the configuration.
pub(crate) fn removable(
    connections: &mut Connections,
    channels: &mut [Channel],
    name: &ChannelName,
    peer: &Credentials,
) -> Result<(ChannelId, Arc<Created>), Refusal> {
    let channel = find(connections, channels, Some(name), peer, Need::Admin)?;
    match &channel.config().created {
        Some(created) => Ok((channel.id(), Arc::clone(created))),
        None => {
            let why = "the daemon's configuration has it; take it out of the file, and run shmctl reload";
            Err(channel_refusal(name, ErrorKind::Configured, why))
        }
    }
}

fn position(channels: &[Channel], name: Option<&ChannelName>, peer: &Credentials) -> Result<usize, Refusal> {
    let visible = || -> Vec<ChannelName> {
        channels.iter().filter(|channel| may_see(channel, peer)).map(|channel| channel.config().name.clone()).collect()
    };
    let joined = |names: &[ChannelName]| names.iter().map(ChannelName::as_str).collect::<Vec<_>>().join(", ");
    let hidden = "this user may use none of the daemon's channels; the administrator of the daemon can add the user to a channel's \
                  lists";
    let no_such = |message: String, channels| Refusal::new(ErrorKind::NoSuchChannel, message).with_channels(channels);
    match name {
        None if channels.len() == 1 => Ok(0),
        None => {
            let names = visible();
            let message = if names.is_empty() {
                format!("several channels, and {hidden}")
            } else {
                format!("several channels: name one of {}", joined(&names))
            };
            Err(no_such(message, names))
        }
        Some(name) => channels.iter().position(|channel| channel.config().name == *name).ok_or_else(|| {
            let names = visible();
            let others = if names.is_empty() { hidden.to_owned() } else { format!("channels: {}", joined(&names)) };
            no_such(format!("no channel named {name}; {others}"), names)
        }),
    }
}

fn not_permitted(connections: &mut Connections, channel: &Channel, peer: &Credentials, right: Need) -> Refusal {
    let (user, name, list) = (connections.user(peer.uid), &channel.config().name, right.right());
    let what = match right {
        Need::Read => "read it",
        Need::Write => "write to it",
        Need::Admin => "administer it",
    };
    let why = format!(
        "user {user} may not {what}; the administrator of the daemon can add \"{user}\" to the channel's {list} list"
    );
    channel_refusal(name, ErrorKind::NotPermitted, why)
}
