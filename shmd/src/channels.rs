//! All channels: those that are served, and those that are being removed.

use std::ops::{Deref, DerefMut};
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::debug;
use shm_proto::ChannelName;

use crate::channel::{Channel, Step};
use crate::config::SourceKind;
use crate::connections::Connections;
use crate::event_loop::{ChannelId, Timer};
use crate::operation_log::{LogEvent, operation};

/// How long a writer has to give its role back, when its channel is removed or the daemon stops. A source's thread is asked to, as a
/// program is, and on a busy machine it takes a second now and then; what it has made, such as a socket, stays if it is left behind.
pub(crate) const GIVE_BACK: Duration = Duration::from_secs(3);
/// How long a handoff that is removed has to end: it waits for its mutex, and a second at most each time.
const HAND_OVER: Duration = Duration::from_secs(5);
/// The same when the daemon stops, and nothing else has to go on.
const STOP: Duration = Duration::from_secs(3);

/// The channels; as a slice, those that are served.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// In the order of their numbers.
    serving: Vec<Channel>,
    /// Taken out of the configuration or removed by a user, and waiting for their writers, then for their handoffs.
    leaving: Vec<Channel>,
    next: ChannelId,
}

impl Channels {
    /// A number that no channel of this daemon has had.
    pub(crate) fn next_id(&mut self) -> ChannelId {
        self.next += 1;
        self.next
    }

    /// Serves a channel. Its number is the newest.
    pub(crate) fn add(&mut self, channel: Channel) {
        self.serving.push(channel);
    }

    /// A channel by its number, if it is still there.
    pub(crate) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        match self.serving.binary_search_by_key(&id, Channel::id) {
            Ok(at) => self.serving.get_mut(at),
            Err(_) => self.leaving.iter_mut().find(|channel| channel.id() == id),
        }
    }

    /// A channel that is served, by its name.
    pub(crate) fn named(&mut self, name: &ChannelName) -> Option<&mut Channel> {
        self.serving.iter_mut().find(|channel| channel.config().name == *name)
    }

    /// Also those that are being removed.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Channel> {
        self.serving.iter().chain(&self.leaving)
    }

    /// Whether a channel of this name is being removed.
    pub(crate) fn is_leaving(&self, name: &ChannelName) -> bool {
        self.leaving.iter().any(|channel| channel.config().name == *name)
    }

    /// Whether any channel is being removed.
    pub(crate) fn have_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Whether a channel that is being removed still has what this source would open. A file may be followed twice.
    pub(crate) fn is_source_leaving(&self, source: &SourceKind) -> bool {
        let object = source.object().filter(|_| !matches!(source, SourceKind::Tail(_)));
        object.is_some() && self.leaving.iter().any(|channel| channel.config().source.object() == object)
    }

    /// Whether some writer has not given its role back.
    pub(crate) fn have_writers(&self) -> bool {
        self.serving.iter().chain(&self.leaving).any(Channel::has_writer)
    }

    /// Begins to remove a channel: nobody comes in any more, and the writer is asked for its role.
    pub(crate) fn remove(&mut self, connections: &mut Connections, name: &ChannelName, reason: &str) {
        let Some(at) = self.serving.iter().position(|channel| channel.config().name == *name) else { return };
        let mut channel = self.serving.remove(at);
        operation(LogEvent::Remove).on(name).reason(reason).info();
        channel.ring_mut().revoke(connections, reason);
        connections.events.set_timer(Timer::Leave(channel.id()), Some(Instant::now() + GIVE_BACK));
        self.leaving.push(channel);
        self.release(connections, None);
    }

    /// Takes a channel out of the way that was made and never served.
    pub(crate) fn discard(&mut self, connections: &mut Connections, mut channel: Channel, reason: &str) {
        channel.ring_mut().give_reason(reason);
        if let Err(e) = channel.watch(connections) {
            // It goes when its time is up.
            debug!("event=no-watch channel={} reason={:?}", channel.config().name, e.to_string());
        }
        self.leaving.push(channel);
        self.release(connections, None);
    }

    /// Lets the channels go whose writers are gone and whose handoffs have ended. Nobody is waited for here: each is closed when
    /// its writer is gone and stays until its handoff has ended, and the time of `late` is up for one of these.
    pub(crate) fn release(&mut self, connections: &mut Connections, late: Option<ChannelId>) {
        let mut may_go = |channel: &mut Channel| {
            let id = channel.id();
            let mut step = channel.next_step(late == Some(id));
            if step == Step::Close {
                connections.events.set_timer(Timer::Resize(id), None);
                connections.events.set_timer(Timer::Leave(id), Some(Instant::now() + HAND_OVER));
                channel.close(connections);
                step = channel.next_step(false);
            }
            step == Step::Go
        };
        let gone: Vec<Channel> = self.leaving.extract_if(.., |channel| may_go(channel)).collect();
        for mut channel in gone {
            connections.events.set_timer(Timer::Leave(channel.id()), None);
            channel.end(connections);
            channel.ring_mut().leave_source_behind();
        }
    }

    /// Tells all readers that it is over, and ends the handoffs. Those of a channel that is being removed are told why.
    pub(crate) fn close(&mut self, connections: &mut Connections, reason: &str) {
        for channel in self.serving.iter_mut().chain(&mut self.leaving) {
            channel.ring_mut().give_reason(reason);
            channel.close(connections);
        }
        let until = Instant::now() + STOP;
        while !self.serving.iter().chain(&self.leaving).all(Channel::is_over) && Instant::now() < until {
            sleep(Duration::from_millis(1));
            for channel in self.serving.iter_mut().chain(&mut self.leaving) {
                channel.thread_ready(connections);
            }
        }
        for channel in self.serving.iter_mut().chain(&mut self.leaving) {
            channel.end(connections);
        }
    }
}

impl Deref for Channels {
    type Target = [Channel];

    fn deref(&self) -> &[Channel] {
        &self.serving
    }
}

impl DerefMut for Channels {
    fn deref_mut(&mut self) -> &mut [Channel] {
        &mut self.serving
    }
}
