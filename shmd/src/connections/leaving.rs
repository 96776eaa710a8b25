//! Connections that stay while the daemon executes its file anew: those that ask, with what has come of their requests. Attached
//! readers and lent writers come back by themselves, as after the daemon's death.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use shm_proto::Result;
use shm_proto::internal::os::peer;

use super::Connections;
use crate::client::Client;
use crate::event_loop::{ClientId, Event, Token};
use crate::handover::{PackedClient, Parcel};

impl Connections {
    /// Packs them for the next program. `asker` is the client that waits for it.
    ///
    /// # Errors
    /// When descriptors or memory have run out.
    pub(crate) fn pack(&self, parcel: &mut Parcel, asker: ClientId) -> io::Result<Vec<PackedClient>> {
        let mut packed = Vec::new();
        for (id, client) in &self.clients {
            let asked = *id == asker;
            if let Some(received) = client.to_hand_over(asked) {
                let (socket, received) = (parcel.fd(client.socket())?, parcel.bytes(received)?);
                packed.push(PackedClient { socket, received, asked });
            }
        }
        Ok(packed)
    }

    /// Goes on with a connection of the program before this one.
    ///
    /// # Errors
    /// When the system does not say who it is, or gives no watch.
    pub(crate) fn take_over(&mut self, socket: OwnedFd, received: Vec<u8>) -> Result<ClientId> {
        let socket = UnixStream::from(socket);
        let credentials = peer::credentials(std::os::fd::AsFd::as_fd(&socket))?;
        self.next += 1;
        let (id, uid) = (self.next, credentials.uid);
        let mut client = Client::new(id, socket, credentials, Instant::now(), &mut self.events)?;
        client.take_over(received);
        self.clients.insert(id, client);
        *self.per_user.entry(uid).or_default() += 1;
        // Lines that lie in the buffer, where epoll does not see them.
        self.events.post(Event::Readable(Token::Client(id)));
        Ok(id)
    }
}
