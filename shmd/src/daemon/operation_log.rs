//! Showing the operation log, once or continuously.

use std::collections::HashMap;

use shm_proto::internal::control::MAX_REPLY;
use shm_proto::internal::os::peer::Credentials;
use shm_proto::{ChannelName, ErrorKind};

use super::Daemon;
use crate::admission::{Full, Held, place};
use crate::connections::{is_master, refusal};
use crate::event_loop::ClientId;
use crate::operation_log::{self, Kept};
use crate::requests::may_see;

/// Most followers: each one costs the daemon time with every operation.
const FOLLOWERS: u32 = 64;
/// Most bytes of an answer, which the daemon holds until it was taken. Root and the daemon's own user get all there is, as far
/// as a line may have it.
const ANSWER: usize = 1 << 20;
const MASTERS_ANSWER: usize = MAX_REPLY - 1024;

/// A client that follows the operation log.
#[derive(Debug)]
pub(super) struct Follower {
    client: ClientId,
    peer: Credentials,
    channel: Option<ChannelName>,
}

/// The channels whose entries a client is shown, each with the number of the first entry; nothing for one that is shown all entries,
/// those of no channel included.
type Visible = Option<HashMap<ChannelName, u64>>;

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
        let Some(client) = self.connections.client(id) else { return };
        let follower = Follower { client: id, peer: client.credentials.clone(), channel };
        if follow && let Err(full) = self.may_follow(&follower.peer) {
            let message = match full {
                Full::All => format!(
                    "{} clients follow the operation log, and the daemon serves {FOLLOWERS}; end one that follows the log (shmctl log \
                     --follow), or ask without following",
                    self.followers.len()
                ),
                Full::Share(share) => format!(
                    "user {} has {share} clients that follow the operation log, the most one user may have (half of {FOLLOWERS}); end \
                     one that follows the log (shmctl log --follow), or ask without following",
                    self.connections.user(follower.peer.uid)
                ),
            };
            return self.connections.reply(id, Err(refusal(ErrorKind::TooMany, message)), Vec::new());
        }
        let visible = self.visible_to(&follower.peer);
        let mut entries = operation_log::after(since);
        entries.retain(|entry| shows(&follower, &visible, entry));
        let over = entries.len().saturating_sub(last.map_or(usize::MAX, |last| last as usize));
        let most = if is_master(follower.peer.uid) { MASTERS_ANSWER } else { ANSWER };
        self.connections.reply_line(id, operation_log::answer(&entries[over..], most));
        // Only now: what a follower may leave lying is bounded, and the answer may be longer than that.
        if follow && let Some(client) = self.connections.client(id) {
            client.follow();
            self.followers.push(follower);
        }
    }

    /// Sends new entries to the followers.
    pub(super) fn inform_followers(&mut self) {
        let newest = operation_log::newest();
        if newest == self.told {
            return;
        }
        let told = std::mem::replace(&mut self.told, newest);
        if self.followers.is_empty() {
            return;
        }
        let new = operation_log::after(told);
        let visible: Vec<Visible> = self.followers.iter().map(|follower| self.visible_to(&follower.peer)).collect();
        for entry in new.iter().filter(|entry| entry.seq <= newest) {
            let line = entry.line();
            let hears = |(follower, visible): &(&Follower, &Visible)| shows(follower, visible, entry);
            for (follower, _) in self.followers.iter().zip(&visible).filter(hears) {
                self.connections.send_line(follower.client, line.clone());
            }
        }
    }

    /// A follower's connection is gone.
    pub(super) fn forget_follower(&mut self, id: ClientId) {
        self.followers.retain(|follower| follower.client != id);
    }

    fn may_follow(&self, peer: &Credentials) -> Result<(), Full> {
        let users = self.followers.iter().map(|follower| follower.peer.uid);
        place(Held::count(users, peer.uid, is_master), FOLLOWERS, is_master(peer.uid))
    }

    fn visible_to(&self, peer: &Credentials) -> Visible {
        let visible = self.channels.iter().filter(|channel| may_see(channel, peer));
        (!is_master(peer.uid)).then(|| operation_log::beginnings(visible.map(|channel| &channel.config().name)))
    }
}

fn shows(follower: &Follower, visible: &Visible, entry: &Kept) -> bool {
    if follower.channel.is_some() && entry.channel != follower.channel {
        return false;
    }
    let first = |visible: &HashMap<ChannelName, u64>| visible.get(entry.channel.as_ref()?).copied();
    visible.as_ref().is_none_or(|visible| first(visible).is_some_and(|first| entry.seq >= first))
}
