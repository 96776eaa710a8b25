//! Answers that a user's programs do not take: they lie in the daemon's memory.

use shm_proto::{ErrorKind, Refusal};

use super::{Connections, is_master, refusal};
use crate::client::Client;
use crate::event_loop::ClientId;

/// Most bytes of answers that wait for one user's connections, before the last answer. Each answer may have a mebibyte, and one user
/// hundreds of connections.
const MOST: usize = 4 << 20;
/// A client that takes nothing loses its connection after some seconds.
const AGAIN_MS: u64 = 1000;

impl Connections {
    /// Checks that a user may ask for something whose answer may be long. The masters may.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(crate) fn check_untaken(&mut self, id: ClientId) -> Result<(), Refusal> {
        let Some(uid) = self.clients.get(&id).map(|client| client.credentials.uid) else { return Ok(()) };
        if is_master(uid) {
            return Ok(());
        }
        let of_user = self.clients.values().filter(|client| client.credentials.uid == uid);
        let untaken: usize = of_user.map(Client::queued_bytes).sum();
        if untaken < MOST {
            return Ok(());
        }
        let why = format!(
            "the connections of user {} have not taken {untaken} bytes of answers, and one user may leave {MOST}; read them, or close \
             the connections, and try again",
            self.user(uid)
        );
        Err(refusal(ErrorKind::TryLater, why).with_retry_after_ms(AGAIN_MS))
    }
}
