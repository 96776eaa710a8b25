//! Lending a ring's writer role to programs, and to a child of the daemon that shrinks a ring without a writer; and
//! handling the writer's lines. [`role`](super::role) decides who holds the role.

use std::time::{Duration, Instant};

use shm_proto::internal::control::Lent;
use shm_proto::internal::os::process;
use shm_proto::internal::ring::link::{ToDaemon, ToWriter};
use shm_proto::{Done, Error, ErrorKind, Refusal, Result};

use super::Ring;
use super::claim::Claim;
use super::lease::{Lease, Offer, To};
use super::role::{Action, Role};
use crate::channel::eviction::By;
use crate::client;
use crate::connections::{Connections, refusal};
use crate::event_loop::{ClientId, Interest, Timer, Token};
use crate::maintenance::Helper;
use crate::operation_log::LogEvent;
use crate::source::Inside;

/// How long a program that was lent the role by a dead daemon has to come back. It asks a few dozen times per second,
/// unless it is stopped. After this time, the channel moves, and another program may write.
const RETURN: Duration = Duration::from_secs(10);

/// The number of characters of a writer's reason that are repeated.
const REASON_CHARS: usize = 200;

/// The last program that was lent the role.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastProgram {
    pub(super) pid: u32,
    pub(super) start: u64,
    /// The program was killed because another program wanted the role.
    pub(super) made_way: bool,
}

/// A ring's writer: the role, and the lease while the role has a holder.
#[derive(Debug, Default)]
pub(in crate::channel) struct Writer {
    role: Role,
    /// There is a lease exactly while the role has a holder.
    lease: Option<Lease>,
    /// The child whose number the role knows.
    helper: Option<Helper>,
    last: Option<LastProgram>,
    /// A program that was lent the role by a dead daemon may come back until this time.
    expected: Option<Instant>,
}

impl Writer {
    /// Nobody holds the role, but a program that a dead daemon lent it to may come back.
    pub(super) fn expecting(somebody: bool) -> Self {
        Self { expected: somebody.then(|| Instant::now() + RETURN), ..Self::default() }
    }

    /// The lease, while the role has a holder.
    pub(in crate::channel) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// The lease, for changes.
    pub(super) fn lease_mut(&mut self) -> Option<&mut Lease> {
        self.lease.as_mut()
    }

    /// Whether a program or a source holds the role, and not a helper of the daemon.
    pub(super) fn is_taken(&self) -> bool {
        self.role.is_taken()
    }

    /// The last program that was lent the role.
    pub(super) fn last_program(&self) -> Option<LastProgram> {
        self.last
    }

    /// Notes that the role is lent to this program.
    pub(super) fn note_program(&mut self, pid: u32) {
        self.last = process::start_ticks(pid).map(|start| LastProgram { pid, start, made_way: false });
    }

    /// Until when a program that was lent the role by a dead daemon may come back, if one may.
    pub(super) fn expected(&self) -> Option<Instant> {
        self.expected
    }

    /// The program has come back, or its time is over.
    pub(super) fn expect_nobody(&mut self) {
        self.expected = None;
    }

    /// Whether a source that ended because its segment was broken can be started now.
    pub(super) fn may_resume(&self) -> bool {
        self.role.may_resume()
    }

    /// The source's thread has ended, so the lease ends. Returns the source and the actions that follow.
    pub(super) fn source_ended(&mut self) -> (Option<Inside>, Vec<Action>) {
        let actions = self.role.source_ended();
        (self.lease.take_if(|lease| lease.source().is_some()).and_then(Lease::into_source), actions)
    }

    /// Ends the child that shrinks the ring. Its end is heard of as usual.
    pub(super) fn end_helper(&mut self) {
        if let Some(helper) = &mut self.helper {
            helper.end_now();
        }
    }

    /// Leaves behind a source that does not end.
    pub(super) fn abandon_source(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.abandon();
        }
    }
}

impl Ring {
    /// Lends the writer role to a client, and answers the client, either at once or when no other process can write any
    /// more.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(crate) fn lend(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
    ) -> Result<(), Refusal> {
        if let Some(lease) = self.writer.lease().filter(|_| self.has_writer()) {
            return self.refuse(ErrorKind::WriterTaken, lease.refusal());
        }
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        let is_helper = self.writer.role.is_child(peer.pid);
        if !is_helper {
            self.make_way(connections);
        }
        self.check_for(connections)?;
        self.await_former().map_err(|e| self.cannot_claim(&e))?;
        if self.claim_segment(connections).map_err(|e| self.cannot_claim(&e))? == Claim::NotYet {
            self.keep_asking(connections, client, program);
            return Ok(());
        }
        let made = Offer::new().and_then(|(offer, page)| {
            let fds = vec![self.segments.current_mut().for_writer()?, page];
            connections.bind(client, client::Role::Writer(self.id))?;
            Ok((offer, fds))
        });
        let (mut offer, fds) = made.map_err(|e| self.internal(&e))?;
        if !is_helper && let Some(left_out) = self.lines.admit(Instant::now()) {
            self.about(LogEvent::Lend).peer(&peer).left_out(left_out).info();
        }
        if !is_helper {
            self.segments.forget_source();
        }
        self.writer.note_program(peer.pid);
        let capacity = self.size.capacity();
        let to = if is_helper { To::Helper { client } } else { To::Program { client, peer } };
        self.prepare(&mut offer);
        let mut lent = Lent::new(self.segments.geometry().clone(), capacity);
        lent.content = self.config.declared.content.clone();
        connections.reply(client, Ok(Done::Publish(lent)), fds);
        self.begin(connections, offer.to(to));
        Ok(())
    }

    fn cannot_claim(&self, error: &Error) -> Refusal {
        match error {
            Error::System(system) if system.kind() == std::io::ErrorKind::ResourceBusy => {
                refusal(ErrorKind::Busy, error.to_string())
            }
            error => self.internal(error),
        }
    }

    /// Collects the first lines for a new writer: all readers, and a shrink in progress. The writer's page says that
    /// these lines are to come.
    pub(super) fn prepare(&mut self, offer: &mut Offer) {
        self.readers.standing().for_each(|(reader, _)| offer.put(ToWriter::ReaderJoined { reader }));
        self.size.writer_came().for_each(|line| offer.put(line));
        offer.miss(self.returning.missing());
        self.segments.name_all();
    }

    /// Gives the role to a new holder.
    pub(super) fn begin(&mut self, connections: &mut Connections, lease: Lease) {
        if lease.source().is_some() {
            connections.events.set_timer(Timer::Source(self.id), None);
        }
        self.writer.role.lent(lease.holder());
        self.writer.lease = Some(lease);
        // Those who wait for a shrink wait for this writer now.
        connections.events.set_timer(Timer::Resize(self.id), self.size.deadline());
        if let Some(until) = self.returning.begin(Instant::now()) {
            connections.events.set_timer(Timer::Returning(self.id), Some(until));
        }
        self.send_lines(connections);
    }

    /// Carries out what the role's state machine has decided. `why` is for the holder that loses the role, or for the
    /// log.
    pub(super) fn perform(&mut self, connections: &mut Connections, actions: Vec<Action>, why: &str) {
        for action in actions {
            match action {
                Action::End => {
                    if let Some(lease) = &self.writer.lease {
                        lease.end();
                    }
                    // The holder may sleep for a reader.
                    self.readers.release_writer();
                    // The holder may have been about to wake a reader when it died or was stopped.
                    self.readers.signal(0);
                }
                Action::Revoke => self.tell(connections, ToWriter::Revoked { reason: why.to_owned() }),
                Action::HangUp(client) => connections.end(client),
                Action::Drop => self.writer.lease = None,
                Action::Return => {
                    if let Some(peer) = self.writer.lease.take().as_ref().and_then(Lease::program)
                        && let Some(left_out) = self.lines.admit(Instant::now())
                    {
                        self.about(LogEvent::Return).peer(peer).left_out(left_out).info();
                    }
                }
                Action::DropChild => self.writer.helper = None,
                Action::NobodyWrites => {
                    self.change_size(connections, |sizing, _| sizing.writer(Instant::now(), false));
                }
                Action::FinishShrink => self.finish_shrink(connections),
                Action::Resume => self.resume_source(connections),
                Action::ReportChild => self.about(LogEvent::ShrinkWaits).reason(why).warn(),
                Action::ExpectNobody => self.change_size(connections, |sizing, _| sizing.expect_nobody()),
            }
        }
    }

    /// Another program wants the role: a helper that has it makes way.
    pub(super) fn make_way(&mut self, connections: &mut Connections) {
        let actions = self.writer.role.make_way();
        if let Some(last) = self.writer.last.as_mut().filter(|_| !actions.is_empty()) {
            last.made_way = true;
        }
        self.perform(connections, actions, "");
    }

    /// The connection of the program that holds the role is gone, or is about to be.
    pub(crate) fn writer_gone(&mut self, connections: &mut Connections, client: ClientId) {
        let actions = self.writer.role.gone(client);
        self.perform(connections, actions, "");
    }

    /// Takes the role from its holder, because the segment is broken.
    pub(super) fn end_lease(&mut self, connections: &mut Connections, reason: &str) {
        let actions = self.writer.role.broken();
        self.perform(connections, actions, reason);
    }

    /// Starts the helper, unless the writer role has a holder. The helper asks for the role like any other program.
    pub(super) fn start_helper(&mut self, connections: &mut Connections) {
        if !self.writer.role.wants_child() || connections.helpers.are_busy() {
            return;
        }
        let started =
            Helper::start(&connections.helpers, &connections.runtime_dir, &self.config.name).and_then(|helper| {
                connections.events.add(helper.end(), Token::Helper(self.id), Interest::READ)?;
                Ok(helper)
            });
        self.writer.role.child_started(Instant::now(), started.as_ref().ok().map(Helper::pid));
        match started {
            Ok(helper) => {
                self.writer.helper = Some(helper);
                self.size.expect_writer();
            }
            Err(e) => self.about(LogEvent::ShrinkWaits).reason(e).warn(),
        }
    }

    /// Whether there is a process to carry out a shrink that begins now.
    pub(super) fn may_shrink(&self, connections: &Connections) -> bool {
        self.writer.lease.is_some() || !connections.helpers.are_busy()
    }

    /// Looks for a shrink that no process carries out.
    pub(super) fn resume_shrink(&mut self, connections: &mut Connections, now: Instant) {
        // A process that carries out the shrink before the readers of a dead daemon are back makes the channel move.
        let waits = self.returning.begin(now).is_some_and(|until| now < until);
        if self.writer.role.has_rested(now) && !waits {
            self.finish_shrink(connections);
        }
    }

    /// Continues a shrink that a writer may have left unfinished.
    pub(super) fn finish_shrink(&mut self, connections: &mut Connections) {
        if self.size.is_shrinking() {
            self.start_helper(connections);
        }
    }

    /// The helper's process has ended.
    pub(crate) fn helper_ended(&mut self, connections: &mut Connections) {
        let Some(helper) = &mut self.writer.helper else { return };
        let Some(status) = helper.status() else { return };
        connections.events.remove(helper.end());
        let actions = self.writer.role.child_ended(status.success());
        let reason = format!("the process that was to shrink the channel ended early: {status}");
        self.perform(connections, actions, &reason);
    }

    /// Handles a line from the writer.
    pub(crate) fn obey(&mut self, connections: &mut Connections, line: ToDaemon) {
        let now = Instant::now();
        match line {
            ToDaemon::Grow { capacity } => {
                self.size.is_pressed();
                self.change_size(connections, |sizing, free| sizing.writer_asks(now, capacity, free));
            }
            ToDaemon::Shrunk { id, after, .. } => {
                self.change_size(connections, |sizing, _| sizing.shrunk(id, after));
                if !self.size.is_shrinking() {
                    self.writer.role.has_shrunk();
                }
            }
            ToDaemon::Taken { lines } => {
                if let Some(lease) = &mut self.writer.lease {
                    lease.taken(lines);
                    if lease.has_lines() {
                        self.send_lines(connections);
                    }
                }
            }
            ToDaemon::Broken { reason } => self.heal_or_log(connections, &repeated(&reason)),
            // The reader of a feed is the daemon's own: a writer that cannot serve it is of no use.
            ToDaemon::Evicted { reason, .. } | ToDaemon::Refused { reason, .. } if self.part.is_some() => {
                self.end_lease(connections, &repeated(&reason));
            }
            ToDaemon::Evicted { reader, reason } | ToDaemon::Refused { reader, reason } => {
                self.evict(connections, reader, &repeated(&reason), By::Writer);
            }
            ToDaemon::Overflow { dropped, overwritten } => {
                if let Some(left_out) = self.trouble.admit(now) {
                    self.about(LogEvent::Overflow)
                        .number("dropped", dropped)
                        .number("overwritten", overwritten)
                        .number("capacity", self.size.capacity())
                        .number("max", self.config.max)
                        .left_out(left_out)
                        .warn();
                }
            }
            // Reported where the line was read.
            ToDaemon::Unknown => {}
        }
    }

    /// Tells the writer something, if there is a writer, and ends any sleep of the writer.
    pub(in crate::channel) fn tell(&mut self, connections: &mut Connections, line: ToWriter) {
        if let Some(lease) = &mut self.writer.lease {
            lease.put(line);
            self.send_lines(connections);
        }
    }

    /// Sends the writer as many of the waiting lines as may be in transit.
    pub(super) fn send_lines(&mut self, connections: &mut Connections) {
        if let Some(lease) = &mut self.writer.lease {
            lease.send(connections, &self.readers);
            self.readers.release_writer();
        }
    }

    /// Lines that had to wait have been sent to the program that holds the role.
    pub(crate) fn announce(&self) {
        if let Some(lease) = &self.writer.lease {
            lease.announce();
            self.readers.release_writer();
        }
    }

    /// Takes the writer role back. The holder gives it up by ending.
    pub(crate) fn revoke(&mut self, connections: &mut Connections, reason: &str) {
        connections.events.set_timer(Timer::Source(self.id), None);
        self.give_reason(reason);
        self.change_size(connections, |sizing, _| sizing.close(reason));
        self.refuse_asking(connections, reason);
        self.make_way(connections);
        self.tell(connections, ToWriter::Revoked { reason: reason.to_owned() });
    }
}

/// The part of a writer's reason that is repeated.
fn repeated(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect()
}
