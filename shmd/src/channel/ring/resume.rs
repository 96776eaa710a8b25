//! Writers and readers of a dead daemon: letting the writer continue, and waiting for both.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use shm_proto::internal::control::Lent;
use shm_proto::internal::os::process;
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::{Done, Error, ErrorKind, Refusal, Result};

use super::Ring;
use super::lease::{Lease, Offer, To};
use crate::client;
use crate::connections::Connections;
use crate::event_loop::{ClientId, Timer};
use crate::operation_log::LogEvent;

impl Ring {
    /// Whether another holder can have the role: not while a program that has the role from a dead daemon may come
    /// back.
    ///
    /// # Errors
    /// An error that says to wait for that program.
    pub(super) fn await_former(&mut self) -> Result<()> {
        let Some(until) = self.writer.expected() else { return Ok(()) };
        if Instant::now() < until && self.segments.current().is_locked()? {
            let reason = format!(
                "a program that was lent the writer role before the daemon was started again has not come back; it may within \
                 {} s",
                until.saturating_duration_since(Instant::now()).as_secs() + 1
            );
            let busy = std::io::Error::new(std::io::ErrorKind::ResourceBusy, reason);
            return Err(Error::system(format!("lend the writer role of channel {}", self.config.name), busy));
        }
        self.writer.expect_nobody();
        Ok(())
    }

    /// Lets a program keep the role that a dead daemon lent to it, and answers the program. The program sends the
    /// segment that it writes to and its descriptor, the capacity that it was allowed, and its page.
    ///
    /// # Errors
    /// The refusal to send instead: the program has lost the role.
    pub(crate) fn resume_writer(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
        (instance, capacity): (u64, u64),
        [segment, page]: [OwnedFd; 2],
    ) -> Result<(), Refusal> {
        if let Some(lease) = self.writer.lease().filter(|_| self.has_writer()) {
            return self.refuse(ErrorKind::WriterTaken, lease.refusal());
        }
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        // Before anything is compared, because this call may replace the segment.
        self.check_for(connections)?;
        let is_lent = instance == self.segments.geometry().instance
            && self.segments.current().is_lent_as(segment.as_fd()).map_err(|e| self.internal(&e.into()))?;
        if !is_lent {
            let why =
                "the segment that it was lent for is no more, or somebody else may write to it; borrow the role again";
            return self.refuse(ErrorKind::WriterTaken, why);
        }
        let offer = match Offer::resumed(page.as_fd()) {
            Err(why) => return self.refuse(ErrorKind::BadRequest, why.to_string()),
            Ok(offer) => offer,
        };
        let Some((mut offer, lacks_lines)) = offer else {
            return self.refuse(ErrorKind::WriterTaken, "the lending was over before");
        };
        self.make_way(connections);
        connections.bind(client, client::Role::Writer(self.id)).map_err(|e| self.internal(&e))?;
        if let Some(left_out) = self.lines.admit(Instant::now()) {
            self.about(LogEvent::Resume).text("role", "writer").peer(&peer).left_out(left_out).info();
        }
        self.writer.note_program(peer.pid);
        self.writer.expect_nobody();
        let most = self.segments.current().data_length().map_err(|e| self.internal(&e.into()))?.min(self.config.max);
        let capacity = capacity.clamp(self.size.capacity().min(most), most);
        self.change_size(connections, |sizing, _| sizing.resumed(capacity));
        // What a dead daemon held back for the writer, or had noted because the writer had not found that daemon.
        if !lacks_lines && !self.segments.has_unnamed() {
            // The writer knows its readers already. Whoever writes after it does not.
            offer.know_all();
        }
        offer.put(self.segments.policy());
        // This line cancels a shrink that the dead daemon requested, and answers a request to grow. If a shrink is
        // still wanted, it follows.
        offer.put(ToWriter::Grown { capacity, done: true });
        self.prepare(&mut offer);
        let mut lent = Lent::new(self.segments.geometry().clone(), capacity);
        lent.content = self.config.declared.content.clone();
        connections.reply(client, Ok(Done::Publish(lent)), Vec::new());
        self.begin(connections, offer.to(To::Program { client, peer }));
        self.take_up_growth(connections);
        Ok(())
    }

    /// All readers of the previous daemon are back, or their time is over.
    fn miss_nobody(&mut self, connections: &mut Connections) {
        connections.events.set_timer(Timer::Returning(self.id), None);
        if let Some(lease) = self.writer.lease_mut() {
            lease.miss(0);
            self.send_lines(connections);
        }
    }

    /// The time of the missing readers is over.
    pub(crate) fn give_up_missing(&mut self, connections: &mut Connections) {
        let missing = self.returning.give_up();
        // Nobody has waited for them if the writer knows them.
        if missing > 0 && !self.writer.lease().is_some_and(Lease::knows_all) {
            let reason = "they were attached to the daemon before this one and have not come back";
            self.about(LogEvent::Missing).number("readers", missing).reason(reason).warn();
            self.miss_nobody(connections);
        }
    }

    /// Whether a reader with this page was attached to the previous daemon, and has not come back.
    pub(in crate::channel) fn expects(&self, page: u64) -> bool {
        self.returning.expects(page)
    }

    /// A reader with this page has come, or has shown that it reads no more. It may be a reader of the previous daemon.
    pub(in crate::channel) fn one_is_back(&mut self, connections: &mut Connections, page: u64) {
        let before = self.returning.missing();
        if !self.returning.came(page) {
            return;
        }
        self.segments.know(1);
        self.fewer_are_missing(connections, before);
    }

    /// Forgets the readers of a dead daemon whose processes have ended, for which nobody has to wait.
    pub(super) fn bury_missing(&mut self, connections: &mut Connections) {
        let before = self.returning.missing();
        let dead = self.returning.bury(process::has_ended);
        if dead == 0 {
            return;
        }
        let reason = "they were attached to the daemon before this one, and their processes have ended";
        self.about(LogEvent::Missing).number("readers", dead).reason(reason).info();
        self.segments.know(dead);
        self.segments.note_readers(&self.readers, &self.returning);
        self.fewer_are_missing(connections, before);
    }

    /// Tells the writer how many of `before` missing readers it still has to wait for.
    fn fewer_are_missing(&mut self, connections: &mut Connections, before: u64) {
        match self.returning.missing() {
            0 if before > 0 => self.miss_nobody(connections),
            missing => {
                if let Some(lease) = self.writer.lease_mut() {
                    lease.miss(missing);
                }
            }
        }
    }
}
