//! Who holds a channel's writer role, and the daemon's end of the link to it.
//!
//! A holder is a program that was lent the role (its connection is the link), a thread of the daemon that a source runs in,
//! or, for as long as a shrink takes on a channel that nobody writes, a child of the daemon. The daemon's own thread never
//! holds the role: a writer begins by walking the whole ring, and the daemon has others to serve.

use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use shm_proto::Result;
use shm_proto::os::barrier;
use shm_proto::os::page::SharedPage;
use shm_proto::os::sem::Semaphore;
use shm_proto::ring::layout::{LeasePage, OVER};
use shm_proto::ring::link::ToWriter;

use crate::event_loop::ClientId;
use crate::hub::Hub;
use crate::liveness::Pulse;
use crate::server::Peer;
use crate::source::Inside;

/// The one that may write.
#[derive(Debug)]
pub(crate) enum Holder {
    /// A program, over its connection.
    Lent { client: ClientId, peer: Peer },
    /// A source's thread.
    Source(Inside),
    /// A child of the daemon that carries a shrink out, over its connection.
    Helper { client: ClientId },
}

/// The writer role while somebody holds it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Who.
    pub(crate) holder: Holder,
    /// Signs of life of a program that holds it.
    pub(crate) pulse: Pulse,
    page: SharedPage<LeasePage>,
}

/// Both ends of a new lease page: the daemon's and the descriptor for the writer.
///
/// # Errors
/// When there is no memory or no descriptor to be had.
pub(crate) fn new_page() -> Result<(SharedPage<LeasePage>, OwnedFd)> {
    SharedPage::create("shmd-lease")
}

impl Lease {
    /// The role in somebody's hands.
    pub(crate) fn new(holder: Holder, page: SharedPage<LeasePage>) -> Self {
        Self { holder, pulse: Pulse::new(Instant::now()), page }
    }

    /// Whether the daemon holds the role for its own purposes, and gives it to whoever asks.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.holder, Holder::Helper { .. })
    }

    /// Puts a line on the link. A holder that does not take it any more loses the role by losing its connection.
    pub(crate) fn tell(&mut self, hub: &mut Hub, line: ToWriter, fds: Vec<OwnedFd>) {
        match &mut self.holder {
            Holder::Lent { client, .. } | Holder::Helper { client } => drop(hub.send(*client, &line, fds)),
            Holder::Source(inside) => inside.tell(line, fds),
        }
        announce(&self.page);
        if let Holder::Source(inside) = &self.holder {
            inside.ring();
        }
    }

    /// Makes the writer look at its link: lines that had to wait have gone out.
    pub(crate) fn announce(&self) {
        announce(&self.page);
    }

    /// Ends the lending, before the connection is closed. A program whose connection the daemon gives up would otherwise take
    /// the daemon for dead and go on, beside the next one that is lent the role.
    pub(crate) fn end(&self) {
        // The writer looks at it without a barrier. After this one, at most the record that it is at will still be written.
        self.page.generation.value.fetch_or(OVER, Ordering::SeqCst);
        barrier::heavy();
        announce(&self.page);
    }

    /// Who it is, for `list` and for whoever wanted the role.
    pub(crate) fn describe(&self) -> String {
        match &self.holder {
            Holder::Lent { peer, .. } => format!("{} (pid {}, user {})", peer.program, peer.pid, peer.user),
            Holder::Source(inside) => inside.kind().to_owned(),
            Holder::Helper { .. } => "none".to_owned(),
        }
    }

    /// Why somebody else cannot have the role.
    pub(crate) fn refusal(&self) -> String {
        match &self.holder {
            Holder::Lent { .. } => {
                format!("the writer role is lent to program {}; it is free when that ends", self.describe())
            }
            Holder::Source(inside) if inside.kind() != "stdin" => {
                format!("the writer role is held by the daemon's own source {}, which does not end", inside.kind())
            }
            _ => format!(
                "the writer role is held by the daemon's own source {}; it is free when that ends",
                self.describe()
            ),
        }
    }
}

/// Raises the generation and wakes the writer if it sleeps for it.
fn announce(page: &LeasePage) {
    // The line is on its way by now. Release, through SeqCst: pairs with the writer's Acquire load before every record.
    page.generation.value.fetch_add(1, Ordering::SeqCst);
    // SeqCst: pairs with the writer's fence between raising its flag and looking at the generation.
    fence(Ordering::SeqCst);
    if page.waiting.value.load(Ordering::Relaxed) != 0 {
        Semaphore::new(&page.wake).post();
    }
}
