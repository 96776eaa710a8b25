//! Who may become a reader now: the limits for each user, in words.

use std::time::{Duration, Instant};

use shm_proto::{ErrorKind, Refusal};

use super::{Channel, Reader};
use crate::admission::{Full, Held, Wait, place};
use crate::connections::{Connections, is_master, refusal};
use crate::peer::Peer;

impl Channel {
    /// Lets a peer in that wants to become one of these readers.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(super) fn admit<'a>(
        &self,
        connections: &mut Connections,
        peer: &Peer,
        readers: impl Iterator<Item = &'a Reader>,
        most: u32,
    ) -> Result<(), Refusal> {
        let (name, user, master, now) = (&self.config.name, &peer.user, is_master(peer.uid), Instant::now());
        if !master {
            connections.attaching.attach(peer.uid, now).map_err(|wait| {
                let why = format!("user {user} attaches too often; try again in {}", told(wait));
                later(format!("channel {name}: {why}"), wait)
            })?;
            self.conduct.attach(peer.uid, now).map_err(|Wait { left, evictions, ago }| {
                let times = if evictions == 1 { "once".to_owned() } else { format!("{evictions} times") };
                let why = format!(
                    "a reader of user {user} was evicted {times}, the last time {} ago; the user may attach again in {}",
                    told(ago),
                    told(left)
                );
                later(format!("channel {name}: {why}"), left)
            })?;
        }
        let held = Held::count(readers.map(|reader| reader.peer.uid), peer.uid, is_master);
        let why = match place(held, most, master) {
            Ok(()) => return Ok(()),
            Err(Full::All) => format!(
                "{} readers are attached, all it takes (max_readers = {most}); evict one, or raise max_readers",
                held.all
            ),
            Err(Full::Share(_)) => format!(
                "user {user} has {} readers, all that one user may have (half of max_readers = {most}); detach some, or \
                 raise max_readers",
                held.own
            ),
        };
        self.refuse(ErrorKind::TooMany, why)
    }

    /// A reader of this peer was evicted. How long its user has to wait, if it has to.
    pub(super) fn punish(&mut self, peer: &Peer) -> Option<Duration> {
        let evict_after = self.config.evict_after;
        (!is_master(peer.uid)).then(|| self.conduct.evicted(peer.uid, Instant::now(), evict_after))
    }
}

fn later(message: String, wait: Duration) -> Refusal {
    // Rounded up, or it would be a little too early.
    let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    Refusal { retry_after_ms: Some(millis), ..refusal(ErrorKind::TryLater, message) }
}

/// A time for people, rounded up.
fn told(time: Duration) -> String {
    match time.as_nanos().div_ceil(1_000_000) {
        millis @ ..1000 => format!("{millis} ms"),
        millis => format!("{} s", millis.div_ceil(1000)),
    }
}
