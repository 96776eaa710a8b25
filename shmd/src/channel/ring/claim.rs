//! Before a new writer begins: either no other process can write to the segment any more, or the channel moves.
//!
//! The kernel answers that question ([`file_lock`](shm_proto::internal::os::file_lock)). A process that has lost the
//! role, or has died, may take a moment to give its memory back, and longer on a busy machine. The daemon waits for
//! that process while it serves others, and then answers the programs that asked for the role in the meantime.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shm_proto::Result;
use shm_proto::internal::os::process;

use super::Ring;
use super::moving::Why;
use crate::client;
use crate::connections::{Connections, channel_refusal};
use crate::event_loop::{ClientId, Timer};

/// For a helper that made way: it was killed, so it certainly ends.
const KILLED: Duration = Duration::from_secs(5);
/// For a process that has ended: it holds its memory for a moment longer.
const DEAD: Duration = Duration::from_millis(100);
/// For a process that is alive: it may be giving the memory back, or be stopped.
const ALIVE: Duration = Duration::from_millis(10);
/// Readers of the previous daemon ask a few dozen times per second. While they are not back, any writer needs a new
/// segment.
const COMEBACK: Duration = Duration::from_secs(1);
/// The time between two looks during such a wait.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// Whether the next writer may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Mine,
    /// Another process can still write to the segment. The daemon looks again soon.
    NotYet,
}

/// The wait for a former writer, and for readers that come back.
#[derive(Debug, Default)]
pub(super) struct Claiming {
    former_until: Option<Instant>,
    readers_until: Option<Instant>,
    /// Programs that have asked for the role in the meantime, with their names.
    asking: VecDeque<(ClientId, Option<String>)>,
}

impl Claiming {
    /// The next one who asks waits for as long as the first one did.
    fn start_over(&mut self) {
        (self.former_until, self.readers_until) = (None, None);
    }
}

impl Ring {
    /// Ensures that only the next writer can write to the segment, and that the daemon knows all readers of the
    /// segment. If another process is still in the segment after a while, the channel moves.
    ///
    /// # Errors
    /// If the channel would have to move and cannot.
    pub(super) fn claim_segment(&mut self, connections: &mut Connections) -> Result<Claim> {
        if self.claiming.readers_until.is_none() {
            self.bury_missing(connections);
        }
        let why = if self.segments.have_strangers() {
            if is_to_wait(&mut self.claiming.readers_until, COMEBACK) {
                return Ok(Claim::NotYet);
            }
            Some(Why::Strangers)
        } else if self.segments.current().is_held()? {
            let patience = self.patience();
            if is_to_wait(&mut self.claiming.former_until, patience) {
                return Ok(Claim::NotYet);
            }
            let who = self.writer.last_program().map_or_else(String::new, |last| format!(", pid {},", last.pid));
            Some(Why::Held(format!("its former writer{who} can still write to the old segment")))
        } else {
            None
        };
        self.claiming.start_over();
        if let Some(why) = why {
            self.move_or_heal(connections, &why)?;
        }
        Ok(Claim::Mine)
    }

    fn patience(&self) -> Duration {
        match self.writer.last_program() {
            Some(last) if last.made_way => KILLED,
            Some(last) if process::is_alive(last.pid, last.start) => ALIVE,
            _ => DEAD,
        }
    }

    /// Makes a program that wants the role wait until the segment can be claimed.
    pub(super) fn keep_asking(&mut self, connections: &mut Connections, client: ClientId, program: Option<&str>) {
        if let Some(client) = connections.client(client) {
            client.role = client::Role::Waiting(Some(self.id));
        }
        self.claiming.asking.push_back((client, program.map(str::to_owned)));
        connections.events.start_timer(Timer::Claim(self.id), Instant::now() + LOOK);
    }

    /// Looks again: the first of the waiting programs gets the role, and the others are told who has it.
    pub(crate) fn claim_due(&mut self, connections: &mut Connections) {
        connections.events.set_timer(Timer::Claim(self.id), None);
        for (client, program) in std::mem::take(&mut self.claiming.asking) {
            if let Err(refusal) = self.lend(connections, client, program.as_deref()) {
                connections.reply(client, Err(refusal), Vec::new());
            }
        }
    }

    /// A program that waited for the role is gone.
    pub(super) fn stops_asking(&mut self, client: ClientId) {
        let before = self.claiming.asking.len();
        self.claiming.asking.retain(|(asking, _)| *asking != client);
        if before > 0 && self.claiming.asking.is_empty() {
            self.claiming.start_over();
        }
    }

    /// Refuses all waiting programs, because the role is not lent any more.
    pub(super) fn refuse_asking(&mut self, connections: &mut Connections, reason: &str) {
        connections.events.set_timer(Timer::Claim(self.id), None);
        for (client, _) in std::mem::take(&mut self.claiming.asking) {
            let refusal = channel_refusal(&self.config.name, shm_proto::ErrorKind::Busy, reason);
            connections.reply(client, Err(refusal), Vec::new());
        }
        self.claiming.start_over();
    }
}

/// Whether a wait of this length is not over yet. It begins with the first question.
fn is_to_wait(until: &mut Option<Instant>, patience: Duration) -> bool {
    let now = Instant::now();
    now < *until.get_or_insert(now + patience)
}
