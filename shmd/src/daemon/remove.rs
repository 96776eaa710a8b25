//! Removing channels that were made at run time, and giving up those that are being made.

use shm_proto::internal::os::peer::Credentials;
use shm_proto::{ChannelName, Done, ErrorKind, Refusal};

use super::Daemon;
use super::creations::{Stage, UnderWay};
use crate::client::Role;
use crate::connections::channel_refusal;
use crate::event_loop::{ChannelId, ClientId};
use crate::requests;

impl Daemon {
    /// A client wants a channel removed. It is answered when the channel is gone.
    pub(super) fn remove_for(&mut self, id: ClientId, name: &ChannelName) {
        let Some(peer) = self.connections.client(id).map(|client| client.credentials.clone()) else { return };
        match self.begin_remove(name, &peer) {
            Ok(channel) => {
                if let Some(client) = self.connections.client(id) {
                    client.role = Role::Waiting(None);
                }
                self.creations.removals.push((channel, id));
            }
            Err(refused) => self.connections.reply(id, Err(refused), Vec::new()),
        }
    }

    fn begin_remove(&mut self, name: &ChannelName, peer: &Credentials) -> Result<ChannelId, Refusal> {
        let (id, created) = requests::removable(&mut self.connections, &mut self.channels, name, peer)?;
        let refuse = |kind, why: &str| channel_refusal(name, kind, format!("nothing was changed: {why}"));
        if self.reexec.is_some() {
            return Err(refuse(ErrorKind::Busy, "a reexec is under way; try again in a second"));
        }
        if self.is_reloading(name) {
            return Err(refuse(ErrorKind::Busy, "a reload is just taking it over; try again in a second"));
        }
        // A channel that goes and comes back with the next daemon would be worse than one that stays.
        self.creations.unsave(name, created.kept).map_err(|why| refuse(ErrorKind::Internal, &why))?;
        let reason = format!("user {} removed the channel", self.connections.user(peer.uid));
        self.channels.remove(&mut self.connections, name, &reason);
        Ok(id)
    }

    /// Answers those whose channels are gone.
    pub(super) fn answer_removals(&mut self) {
        let channels = &mut self.channels;
        let is_gone = |(channel, _): &mut (ChannelId, ClientId)| channels.get_mut(*channel).is_none();
        let gone: Vec<_> = self.creations.removals.extract_if(.., is_gone).collect();
        for (_, client) in gone {
            self.connections.reply(client, Ok(Done::Remove {}), Vec::new());
        }
    }

    /// Makes no channels any more, because the daemon stops; `why` is for the clients that wait for it. A channel that is being
    /// removed goes with the daemon.
    pub(super) fn give_creations_up(&mut self, why: &str) {
        for UnderWay { client, name, created, stage, .. } in std::mem::take(&mut self.creations.under_way) {
            self.connections.events.remove(stage.bell());
            let writes = matches!(stage, Stage::Makes(..));
            // Its thread may be about to write the file.
            drop(stage);
            let left = if writes { self.creations.unsave(&name, created.kept).err() } else { None };
            let left = left.map(|e| format!("; {e}")).unwrap_or_default();
            let refused = channel_refusal(&name, ErrorKind::Busy, format!("it is not created: {why}{left}"));
            self.connections.reply(client, Err(refused), Vec::new());
        }
        for (_, client) in std::mem::take(&mut self.creations.removals) {
            self.connections.reply(client, Ok(Done::Remove {}), Vec::new());
        }
    }
}
