//! The lease of a ring's writer role: the daemon's end of the link to the holder.

mod outbox;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use log::debug;
use shm_proto::Result;
use shm_proto::internal::control::stat::{self, WriterName, WriterRole, WriterStat, WriterState};
use shm_proto::internal::os::barrier;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::sem::Semaphore;
use shm_proto::internal::ring::Snapshot;
use shm_proto::internal::ring::layout::{LeasePage, OVER};
use shm_proto::internal::ring::link::ToWriter;

use super::role::Holder;
use crate::channel::reader::{Reader, age_ms};
use crate::channel::readers::Readers;
use crate::connections::Connections;
use crate::event_loop::ClientId;
use crate::liveness::{Found, Pulse};
use crate::peer::Peer;
use crate::source::Inside;
use outbox::Outbox;

/// How the daemon reaches the holder.
#[derive(Debug)]
pub(super) enum To {
    /// A program, over its connection.
    Program { client: ClientId, peer: Peer },
    /// A source's thread.
    Source(Inside),
    /// A child of the daemon that carries out a shrink, over its connection.
    Helper { client: ClientId },
}

/// The writer role while it is held.
#[derive(Debug)]
pub(super) struct Lease {
    to: To,
    /// Signs of life of a program that holds the role.
    pulse: Pulse,
    page: SharedPage<LeasePage>,
    lines: Outbox,
    /// The writer has seen that there are lines to come, or may have.
    held_back: bool,
}

/// The writer role before it is held, with the first lines for the holder.
#[derive(Debug)]
pub(super) struct Offer {
    page: SharedPage<LeasePage>,
    lines: Outbox,
}

impl Offer {
    /// An offer without lines, and the page's descriptor for the writer.
    ///
    /// # Errors
    /// If no memory or no descriptor is left.
    pub(super) fn new() -> Result<(Self, OwnedFd)> {
        let (page, fd) = SharedPage::create("shmd-lease")?;
        Ok((Self { page, lines: Outbox::default() }, fd))
    }

    /// An offer for a program that shows the page of a lease from a dead daemon, and whether that daemon held back lines, which
    /// may have named readers. `None` if that lease was already over.
    ///
    /// # Errors
    /// If the page is not a lease page.
    pub(super) fn resumed(page: BorrowedFd<'_>) -> Result<Option<(Self, bool)>> {
        let page = SharedPage::<LeasePage>::open(page)?;
        let is_over = page.generation.value.load(Ordering::SeqCst) & OVER != 0;
        let lacks_lines = page.pending.value.load(Ordering::SeqCst) > 0;
        Ok((!is_over).then(|| (Self { page, lines: Outbox::default() }, lacks_lines)))
    }

    /// Keeps a line for the holder. The holder's page says that there is a line to come.
    pub(super) fn put(&mut self, line: ToWriter) {
        self.lines.put(line);
        hold_back(&self.page, &self.lines);
    }

    /// Notes how many readers may come back that the holder must wait for.
    pub(super) fn miss(&mut self, readers: u64) {
        self.lines.miss(readers);
        hold_back(&self.page, &self.lines);
    }

    /// Notes that the holder knows all of them, and waits for none.
    pub(super) fn know_all(&mut self) {
        self.lines.know_all();
    }

    /// Turns the offer into a lease: the role is held from now on. The caller must now [send](Lease::send) the lines.
    pub(super) fn to(self, to: To) -> Lease {
        let held_back = self.lines.len() > 0;
        Lease { to, pulse: Pulse::new(Instant::now()), page: self.page, lines: self.lines, held_back }
    }
}

impl Lease {
    /// The holder of the role.
    pub(super) fn holder(&self) -> Holder {
        match self.to {
            To::Program { client, .. } => Holder::Program(client),
            To::Helper { client } => Holder::Helper(client),
            To::Source(_) => Holder::Source,
        }
    }

    /// The program that holds the role, if any.
    pub(super) fn program(&self) -> Option<&Peer> {
        if let To::Program { peer, .. } = &self.to { Some(peer) } else { None }
    }

    /// The source that holds the role, if any.
    pub(super) fn source(&self) -> Option<&Inside> {
        if let To::Source(inside) = &self.to { Some(inside) } else { None }
    }

    /// The source of a lease that is given up.
    pub(super) fn into_source(self) -> Option<Inside> {
        if let To::Source(inside) = self.to { Some(inside) } else { None }
    }

    /// Closes a program's connection after everything has been sent.
    pub(super) fn hang_up(&self, connections: &mut Connections) {
        if let To::Program { client, .. } = &self.to {
            connections.end(*client);
        }
    }

    /// Leaves behind a source's thread that does not end.
    pub(super) fn abandon(&mut self) {
        if let To::Source(inside) = &mut self.to {
            inside.abandon();
        }
    }

    /// Looks for signs of life: its position, or its heartbeat. Only a program can stall: a source's thread sleeps until there is
    /// input, and lives and dies with the daemon.
    pub(super) fn look(&mut self, now: Instant, shot: &Snapshot, patience: Option<Duration>) -> Found {
        let due = matches!(self.to, To::Program { .. });
        self.pulse.look(now, shot.tail.pos, shot.writer_heartbeat, due, patience.filter(|_| due))
    }

    /// For `stat`; `user` is the daemon's own. A writer that is busy publishes, and does not take the time for its heartbeat.
    pub(super) fn stat(&self, user: &str, shot: &Snapshot) -> Option<WriterStat> {
        let state = if self.pulse.is_stalled() { WriterState::Stalled } else { WriterState::Active };
        let (pid, program, user, role) = match &self.to {
            To::Program { peer, .. } => (peer.pid, peer.program.clone(), peer.user.clone(), WriterRole::Lent),
            To::Source(_) => (std::process::id(), "shmd".to_owned(), user.to_owned(), WriterRole::Source),
            To::Helper { .. } => return None,
        };
        let mut stat = WriterStat::new(role, pid, program, user);
        let unmoved = self.pulse.unmoved(Instant::now(), shot.tail.pos).as_millis();
        stat.heartbeat_ms = age_ms(shot.writer_heartbeat).min(u64::try_from(unmoved).unwrap_or(u64::MAX));
        stat.state = state;
        Some(stat)
    }

    /// Keeps a line for the writer; [`send`](Self::send) sends it.
    pub(super) fn put(&mut self, line: ToWriter) {
        self.lines.put(line);
    }

    /// Notes how many readers may come back that the writer must wait for.
    pub(super) fn miss(&mut self, readers: u64) {
        self.lines.miss(readers);
    }

    /// Whether the writer knows all readers that may come back.
    pub(super) fn knows_all(&self) -> bool {
        self.lines.knows_all()
    }

    /// The writer has taken this number of lines.
    pub(super) fn taken(&mut self, lines: u64) {
        self.lines.taken(lines);
    }

    /// Whether a program holds the role that has not taken all lines, so that it may not know all readers.
    pub(super) fn is_behind(&self) -> bool {
        self.program().is_some() && !self.lines.are_taken()
    }

    /// Whether lines wait to be sent.
    pub(super) fn has_lines(&self) -> bool {
        self.lines.len() > 0
    }

    /// Puts lines on the link, as many as may be in transit, and makes the writer look. The other lines wait until the
    /// writer has taken these, however long that takes. In the meantime, the writer gives up no space.
    pub(super) fn send(&mut self, connections: &mut Connections, readers: &Readers) {
        // If more lines remain than go out now, this comes before the generation is raised: see `Writer::withhold`.
        if self.lines.is_held_up() {
            self.hold_back();
        }
        while let Some(line) = self.lines.next() {
            let fds = match &line {
                ToWriter::ReaderJoined { reader } => match readers.get(*reader).map(Reader::for_writer) {
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
            match &mut self.to {
                To::Program { client, .. } | To::Helper { client } => drop(connections.send(*client, &line, fds)),
                To::Source(inside) => inside.tell(line, fds),
            }
        }
        announce(&self.page);
        if self.held_back {
            // After the lines have been sent. A writer that saw the old number waits for the generation to change.
            self.hold_back();
            announce(&self.page);
        }
        if let To::Source(inside) = &self.to {
            inside.ring();
        }
    }

    /// Shows the writer how many lines are to come.
    fn hold_back(&mut self) {
        hold_back(&self.page, &self.lines);
        self.held_back = self.lines.len() > 0;
    }

    /// Makes the writer look at its link: lines that had to wait have been sent.
    pub(super) fn announce(&self) {
        announce(&self.page);
    }

    /// Ends the lease, before the connection is closed. Otherwise, a program whose connection the daemon closes would
    /// take the daemon for dead and continue beside the next holder of the role.
    pub(super) fn end(&self) {
        // The writer checks this word without a barrier. After the barrier below, at most the record that is in
        // progress will still be written.
        self.page.generation.value.fetch_or(OVER, Ordering::SeqCst);
        barrier::heavy();
        announce(&self.page);
    }

    /// The holder, for `list` and for a program that wanted the role.
    pub(super) fn name(&self) -> WriterName {
        match &self.to {
            To::Program { peer: Peer { program, pid, user, .. }, .. } => {
                WriterName::Program { program: program.clone(), pid: *pid, user: user.clone() }
            }
            To::Source(inside) => WriterName::Source(inside.kind().clone()),
            To::Helper { .. } => WriterName::Nobody,
        }
    }

    /// Why another program cannot have the role.
    pub(super) fn refusal(&self) -> String {
        match &self.to {
            To::Program { .. } => {
                format!("program {} has borrowed the writer role; the role is free when that program ends", self.name())
            }
            To::Source(inside) if *inside.kind() != stat::SourceKind::Stdin => {
                format!("the daemon's own source {} holds the writer role and does not end", inside.kind())
            }
            _ => format!(
                "the daemon's own source {} holds the writer role; the role is free when the source ends",
                self.name()
            ),
        }
    }
}

/// Shows the writer how many lines are to come.
fn hold_back(page: &LeasePage, lines: &Outbox) {
    // Release, as part of SeqCst, pairs with the Acquire load in `Lease::lacks_lines`, which `Writer::withhold` calls.
    page.pending.value.store(lines.len() as u64, Ordering::SeqCst);
}

/// Raises the generation, and wakes the writer if it sleeps for that.
fn announce(page: &LeasePage) {
    // The line is in transit by now. Release, as part of SeqCst, pairs with the writer's Acquire load before every
    // record.
    page.generation.value.fetch_add(1, Ordering::SeqCst);
    // SeqCst pairs with the writer's fence between raising its flag and looking at the generation.
    fence(Ordering::SeqCst);
    if page.waiting.value.load(Ordering::Relaxed) != 0 {
        Semaphore::new(&page.wake).post();
    }
}
