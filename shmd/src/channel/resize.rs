//! Carries out what [`Sizing`](crate::sizing::Sizing) decides: reservations, cuts, lines to the writer, answers.

use std::time::Instant;

use shm_proto::control::{Done, Resized};
use shm_proto::os::reserve::{Progress, Reservation};
use shm_proto::ring::layout::DATA_OFFSET;
use shm_proto::ring::link::ToWriter;

use super::{Channel, OWN_WORK};
use crate::event_loop::{ClientId, Interest, Timer, Token};
use crate::hub::{Hub, refusal};
use crate::journal::{Operation, operation};
use crate::lease::{Holder, Lease};
use crate::maintenance::Helper;
use crate::sizing::Action;
use crate::source::Own;

/// Memory is reserved in steps of this many bytes; the writer may use each as soon as it is there.
const STEP: u64 = 16 << 20;

/// The line in an action that is one to the writer.
pub(super) fn told(action: Action) -> Option<ToWriter> {
    match action {
        Action::Tell(line) => Some(line),
        _ => None,
    }
}

impl Channel {
    /// A resize request; it is answered when it is done or refused.
    pub(crate) fn resize(&mut self, hub: &mut Hub, client: ClientId, bytes: u64) {
        if self.handoff.is_some() {
            return self.resize_handoff(hub, client, bytes);
        }
        if bytes < self.sizing.capacity() && self.sizing.bounds().fit(bytes).is_some() {
            self.take_own(hub);
        }
        let actions = self.sizing.ask(Instant::now(), client, bytes, self.segment.free());
        self.carry_out(hub, actions);
        self.work_own(hub);
    }

    /// A client that waits for an answer is gone.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.sizing.forget(client);
    }

    /// Gives back memory that has not been needed for a while.
    pub(super) fn shrink_unused(&mut self, hub: &mut Hub, now: Instant, target: u64) {
        self.take_own(hub);
        let actions = self.sizing.low_use(now, target);
        self.carry_out(hub, actions);
        self.work_own(hub);
    }

    /// The reservation under way has something to tell.
    pub(crate) fn reservation_ready(&mut self, hub: &mut Hub) {
        let Some((reservation, _)) = &mut self.reservation else { return };
        let now = Instant::now();
        let actions = match reservation.advance() {
            Ok(Progress::NotYet) => return,
            Ok(Progress::Reserved(length)) => {
                let bytes = length.saturating_sub(DATA_OFFSET);
                self.segment.grown(bytes);
                self.sizing.reserved(bytes)
            }
            Ok(Progress::Done(length)) => {
                self.segment.grown(length.saturating_sub(DATA_OFFSET));
                self.end_reservation(hub);
                self.sizing.finished(now, self.segment.free())
            }
            Ok(Progress::Failed { source, .. }) => self.reservation_failed(hub, &source.to_string()),
            Err(e) => self.reservation_failed(hub, &e.to_string()),
        };
        self.carry_out(hub, actions);
    }

    fn reservation_failed(&mut self, hub: &mut Hub, reason: &str) -> Vec<Action> {
        self.end_reservation(hub);
        // Before what the attempt took is given back: this is what it met.
        let free = self.segment.free();
        self.sizing.failed(Instant::now(), reason, free)
    }

    fn end_reservation(&mut self, hub: &mut Hub) {
        if let Some((reservation, _)) = self.reservation.take() {
            hub.events.remove(&reservation);
        }
    }

    /// A change of size was waited for, or the daemon works on one itself.
    pub(crate) fn resize_due(&mut self, hub: &mut Hub) {
        self.work_own(hub);
        let actions = self.sizing.tick(Instant::now(), self.segment.free());
        self.carry_out(hub, actions);
    }

    /// Carries actions out, in order, and those that follow from failures.
    pub(super) fn carry_out(&mut self, hub: &mut Hub, actions: Vec<Action>) {
        let mut queue = std::collections::VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Reserve { from, to } => queue.extend(self.reserve(hub, from, to)),
                Action::CancelReservation => self.end_reservation(hub),
                Action::Tell(line) => self.tell(hub, line, Vec::new()),
                Action::Cut { to, after } => {
                    let readers = &self.readers;
                    self.segment.cut(to, after, |position| readers.values().all(|reader| reader.is_past(position)));
                }
                Action::Done { client, old, asked, new, pending } => {
                    let resized = Resized { channel: self.config.name.clone(), old, asked, new, pending };
                    hub.reply(client, Ok(Done::Resize(resized)), Vec::new());
                }
                Action::Refuse { client, kind, message } => {
                    let message = format!("channel {}: {message}", self.config.name);
                    hub.reply(client, Err(refusal(kind, message)), Vec::new());
                }
                Action::Grew { old, new, by } => {
                    self.resizes += 1;
                    self.resized("grow", old, new).text("by", by.as_str()).info();
                }
                Action::Shrank { old, new, by } => {
                    self.resizes += 1;
                    self.resized("shrink", old, new).text("by", by.as_str()).info();
                }
                Action::NotGrown { asked, reason } => {
                    operation("grow-failed").on(&self.config.name).number("asked", asked).reason(reason).warn();
                }
            }
        }
        let own = matches!(self.lease, Some(Lease { holder: Holder::Own(_), .. }));
        let work = own.then(|| Instant::now() + OWN_WORK);
        hub.events.set_timer(Timer::Resize(self.id), self.sizing.deadline().into_iter().chain(work).min());
    }

    fn resized(&self, event: &'static str, old: u64, new: u64) -> Operation {
        let resized = operation(event).on(&self.config.name);
        let resized = if self.handoff.is_some() { resized.text("part", "feed") } else { resized };
        resized.number("old", old).number("new", new)
    }

    fn reserve(&mut self, hub: &mut Hub, from: u64, to: u64) -> Vec<Action> {
        let started = Reservation::start(self.segment.file(), DATA_OFFSET + from, DATA_OFFSET + to, STEP);
        let watched = started.and_then(|reservation| {
            hub.events.add(&reservation, Token::Reservation(self.id), Interest::READ)?;
            Ok(reservation)
        });
        match watched {
            Ok(reservation) => {
                self.reservation = Some((reservation, Instant::now()));
                Vec::new()
            }
            Err(e) => self.reservation_failed(hub, &e.to_string()),
        }
    }

    /// Cuts what had to be left for readers that have gone on since.
    pub(super) fn settle_segment(&mut self) {
        if self.segment.is_unsettled() && !self.sizing.growing() {
            let readers = &self.readers;
            let capacity = self.sizing.capacity();
            self.segment.settle(capacity, |position| readers.values().all(|reader| reader.is_past(position)));
        }
    }

    /// A writer has left a shrink unfinished: the daemon finishes it where it may.
    pub(super) fn take_over_shrink(&mut self, hub: &mut Hub) {
        if self.sizing.shrinking().is_some() {
            self.take_own(hub);
            self.work_own(hub);
        }
    }

    /// Takes the writer role into the daemon's own hands if nobody holds it. Never where a program was lent it: that
    /// program may still hold the file and could cut it under the daemon's feet. A child does it there.
    fn take_own(&mut self, hub: &mut Hub) {
        if self.lease.is_some() {
            return;
        }
        if self.was_lent {
            return self.start_helper(hub);
        }
        let taken = self.opening().and_then(|(opening, page)| Ok((Own::take(opening)?, page)));
        match taken {
            Ok((own, page)) => self.lease = Some(Lease::new(Holder::Own(Box::new(own)), page)),
            Err(e) => {
                operation("shrink-waits").on(&self.config.name).reason(e).warn();
                let actions = self.sizing.writer(false);
                self.carry_out(hub, actions);
            }
        }
    }

    fn start_helper(&mut self, hub: &Hub) {
        if self.helper.as_mut().is_some_and(Helper::is_running) {
            return;
        }
        match Helper::start(&hub.runtime_dir, &self.config.name) {
            Ok(helper) => {
                self.helper = Some(helper);
                self.sizing.expect_writer();
            }
            Err(e) => operation("shrink-waits").on(&self.config.name).reason(e).warn(),
        }
    }

    /// Goes on with a shrink in the daemon's own hands, and lets go of the role when there is none any more.
    pub(super) fn work_own(&mut self, hub: &mut Hub) {
        let Some(Lease { holder: Holder::Own(own), .. }) = &mut self.lease else { return };
        match own.work() {
            Ok(lines) => lines.into_iter().for_each(|line| self.obey(hub, line)),
            Err(e) => {
                operation("shrink-waits").on(&self.config.name).reason(e).warn();
                self.drop_own(hub);
            }
        }
        if self.sizing.shrinking().is_none() {
            self.drop_own(hub);
        }
    }

    /// Lets go of the role if the daemon itself holds it.
    pub(super) fn drop_own(&mut self, hub: &mut Hub) {
        if self.lease.as_ref().is_some_and(Lease::is_own) {
            self.lease = None;
            self.helper = None;
            let actions = self.sizing.writer(false);
            self.carry_out(hub, actions);
        }
    }
}
