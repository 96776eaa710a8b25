//! Showing the operation log, once or as it goes on.

use shm_proto::ChannelName;
use shm_proto::control::Done;
use shm_proto::oplog::LogEntry;
use shm_proto::os::peer::Credentials;

use super::Daemon;
use crate::event_loop::ClientId;
use crate::journal;
use crate::requests::may_see;

/// A client that is told of every operation.
#[derive(Debug)]
pub(super) struct Follower {
    client: ClientId,
    peer: Credentials,
    channel: Option<ChannelName>,
}

impl Daemon {
    /// Answers a `log` request.
    pub(super) fn show_log(
        &mut self,
        id: ClientId,
        channel: Option<ChannelName>,
        since: u64,
        last: Option<u32>,
        follow: bool,
    ) {
        // What is not delivered yet goes to those who follow already; a new one has it in its answer.
        self.inform_followers();
        let Some(client) = self.hub.client(id) else { return };
        let follower = Follower { client: id, peer: client.credentials.clone(), channel };
        let mut entries = journal::after(since);
        entries.retain(|entry| self.shows(&follower, entry));
        let over = entries.len().saturating_sub(last.map_or(usize::MAX, |last| last as usize));
        entries.drain(..over);
        self.hub.reply(id, Ok(Done::Log(entries)), Vec::new());
        // Only now: what a follower may leave lying is bounded, and the answer may be longer than that.
        if follow && let Some(client) = self.hub.client(id) {
            client.follow();
            self.followers.push(follower);
        }
    }

    /// Sends what is new to those who follow.
    pub(super) fn inform_followers(&mut self) {
        let newest = journal::newest();
        if newest == self.told {
            return;
        }
        let told = std::mem::replace(&mut self.told, newest);
        if self.followers.is_empty() {
            return;
        }
        for entry in journal::after(told).into_iter().filter(|entry| entry.seq <= newest) {
            let told = self.followers.iter().filter(|follower| self.shows(follower, &entry));
            for client in told.map(|follower| follower.client).collect::<Vec<_>>() {
                self.hub.send(client, &entry, Vec::new());
            }
        }
    }

    /// A follower's connection is gone.
    pub(super) fn forget_follower(&mut self, id: ClientId) {
        self.followers.retain(|follower| follower.client != id);
    }

    fn shows(&self, follower: &Follower, entry: &LogEntry) -> bool {
        if follower.channel.is_some() && entry.channel != follower.channel {
            return false;
        }
        let named = |name: &ChannelName| self.channels.iter().find(|channel| channel.config().name == *name);
        self.is_master(&follower.peer)
            || entry.channel.as_ref().and_then(named).is_some_and(|channel| may_see(channel, &follower.peer))
    }
}
