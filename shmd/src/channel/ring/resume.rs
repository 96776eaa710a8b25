//! Writers and readers of a daemon that died: letting the writer go on, and waiting for both.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use shm_proto::internal::control::Lent;
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::{Done, Error, ErrorKind, Refusal, Result};

use super::Ring;
use super::lease::{Offer, To};
use crate::client;
use crate::connections::Connections;
use crate::event_loop::{ClientId, Timer};
use crate::operation_log::LogEvent;

impl Ring {
    /// Whether somebody else can have the role: not while a program that has it from a dead daemon may come back.
    ///
    /// # Errors
    /// That it has to be waited for.
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

    /// Lets a program keep the role that a dead daemon lent to it, and answers it: the segment that it writes and its descriptor, the
    /// capacity that it was allowed, and its page.
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
        // Before anything is compared: the segment may be replaced by that.
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
        let Some(mut offer) = offer else {
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
        // It knows its readers by itself.
        self.returning.give_up();
        offer.put(self.segments.policy());
        // It takes back a shrink that the dead daemon asked for, and answers a wish to grow. A shrink that still is to be follows.
        offer.put(ToWriter::Grown { capacity, done: true });
        self.prepare(&mut offer);
        let lent = Lent::new(self.segments.geometry().clone(), capacity);
        connections.reply(client, Ok(Done::Publish(lent)), Vec::new());
        self.begin(connections, offer.to(To::Program { client, peer }));
        self.take_up_growth(connections);
        Ok(())
    }

    /// Readers of the daemon before this one are all back, or waited for no longer.
    fn miss_nobody(&mut self, connections: &mut Connections) {
        connections.events.set_timer(Timer::Returning(self.id), None);
        if let Some(lease) = self.writer.lease_mut() {
            lease.miss(0);
            self.send_lines(connections);
        }
    }

    /// They had their time.
    pub(crate) fn give_up_missing(&mut self, connections: &mut Connections) {
        let missing = self.returning.give_up();
        if missing > 0 {
            let reason = "they were attached to the daemon before this one and have not come back";
            self.about(LogEvent::Missing).number("readers", missing).reason(reason).warn();
            self.miss_nobody(connections);
        }
    }

    /// A reader with this page has come, or has shown that it reads no more. It may be one of the daemon before this one.
    pub(in crate::channel) fn one_is_back(&mut self, connections: &mut Connections, page: u64) {
        let before = self.returning.missing();
        if !self.returning.came(page) {
            return;
        }
        self.segments.came_back();
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
