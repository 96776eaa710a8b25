//! The holder of a channel's writer role, and the daemon's end of the link to it.
//!
//! A holder is a program that was lent the role (its connection is the link), a thread of the daemon that a source runs in,
//! or, for as long as a shrink takes on a channel that nobody writes, a child of the daemon. The daemon's own thread never
//! holds the role: a writer begins by walking the whole ring, and the daemon has others to serve.

mod outbox;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use log::debug;
use shm_proto::Result;
use shm_proto::internal::os::barrier;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::sem::Semaphore;
use shm_proto::internal::ring::layout::{LeasePage, OVER};
use shm_proto::internal::ring::link::ToWriter;

use crate::channel::Reader;
use crate::connections::Connections;
use crate::event_loop::ClientId;
use crate::liveness::Pulse;
use crate::peer::Peer;
use crate::source::Inside;
use outbox::Outbox;

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

/// The writer role while it is held.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Who.
    pub(crate) holder: Holder,
    /// Signs of life of a program that holds it.
    pub(crate) pulse: Pulse,
    page: SharedPage<LeasePage>,
    lines: Outbox,
    /// The writer has seen that lines are to come, or may have.
    held_back: bool,
}

/// The writer role before it is held, with the lines that the holder needs first.
#[derive(Debug)]
pub(crate) struct Offer {
    page: SharedPage<LeasePage>,
    lines: Outbox,
}

impl Offer {
    /// With nothing to tell, and the page's descriptor for the writer.
    ///
    /// # Errors
    /// If there is no memory or no descriptor left.
    pub(crate) fn new() -> Result<(Self, OwnedFd)> {
        let (page, fd) = SharedPage::create("shmd-lease")?;
        Ok((Self { page, lines: Outbox::default() }, fd))
    }

    /// The holder is to be told this, and its page says that something is to come.
    pub(crate) fn put(&mut self, line: ToWriter) {
        self.lines.put(line);
        hold_back(&self.page, &self.lines);
    }

    /// The role is held from now on. The lines are [sent](Lease::send) now.
    pub(crate) fn to(self, holder: Holder) -> Lease {
        let held_back = self.lines.len() > 0;
        Lease { holder, pulse: Pulse::new(Instant::now()), page: self.page, lines: self.lines, held_back }
    }
}

impl Lease {
    /// Whether the daemon holds the role for its own purposes, and gives it to the first program that asks.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.holder, Holder::Helper { .. })
    }

    /// Keeps a line for the writer; [`send`](Self::send) sends it.
    pub(crate) fn put(&mut self, line: ToWriter) {
        self.lines.put(line);
    }

    /// The writer has taken this number of lines.
    pub(crate) fn taken(&mut self, lines: u64) {
        self.lines.taken(lines);
    }

    /// Whether lines wait to be sent.
    pub(crate) fn has_lines(&self) -> bool {
        self.lines.len() > 0
    }

    /// Puts lines on the link, as many as the writer is to be sent at a time, and makes it look. The others wait until it has
    /// taken these, however long that is; it gives nothing up meanwhile.
    pub(crate) fn send(&mut self, connections: &mut Connections, readers: &BTreeMap<u32, Reader>) {
        // Before the generation is raised, where more is to come than goes out now: see `Writer::withhold`.
        if self.lines.is_held_up() {
            self.hold_back();
        }
        while let Some(line) = self.lines.next() {
            let fds = match &line {
                ToWriter::ReaderJoined { reader } => match readers.get(reader).map(Reader::for_writer) {
                    Some(Ok(fds)) => fds,
                    None => continue,
                    Some(Err(error)) => {
                        // The next tick tries again.
                        debug!("event=line-waits reason={:?}", error.to_string());
                        self.lines.put_back(line);
                        self.hold_back();
                        break;
                    }
                },
                _ => Vec::new(),
            };
            match &mut self.holder {
                Holder::Lent { client, .. } | Holder::Helper { client } => drop(connections.send(*client, &line, fds)),
                Holder::Source(inside) => inside.tell(line, fds),
            }
        }
        announce(&self.page);
        if self.held_back {
            // After the lines have gone out. A writer that saw the old number waits for the generation to change.
            self.hold_back();
            announce(&self.page);
        }
        if let Holder::Source(inside) = &self.holder {
            inside.ring();
        }
    }

    /// Lets the writer see how many lines are to come.
    fn hold_back(&mut self) {
        hold_back(&self.page, &self.lines);
        self.held_back = self.lines.len() > 0;
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

    /// The holder, for `list` and for a program that wanted the role.
    pub(crate) fn describe(&self) -> String {
        match &self.holder {
            Holder::Lent { peer, .. } => format!("{} (pid {}, user {})", peer.program, peer.pid, peer.user),
            Holder::Source(inside) => inside.kind().to_owned(),
            Holder::Helper { .. } => "none".to_owned(),
        }
    }

    /// Why another program cannot have the role.
    pub(crate) fn refusal(&self) -> String {
        match &self.holder {
            Holder::Lent { .. } => {
                format!(
                    "program {} has borrowed the writer role; the role is free when that program ends",
                    self.describe()
                )
            }
            Holder::Source(inside) if inside.kind() != "stdin" => {
                format!("the daemon's own source {} holds the writer role and does not end", inside.kind())
            }
            _ => format!(
                "the daemon's own source {} holds the writer role; the role is free when the source ends",
                self.describe()
            ),
        }
    }
}

/// Tells the writer how many lines are to come.
fn hold_back(page: &LeasePage, lines: &Outbox) {
    // Release, through SeqCst: pairs with the Acquire load in `Writer::withhold`.
    page.pending.value.store(lines.len() as u64, Ordering::SeqCst);
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
