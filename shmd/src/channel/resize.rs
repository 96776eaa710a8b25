//! Carries out what [`Sizing`](crate::sizing::Sizing) decides: reservations, cuts, lines to the writer, answers.

use std::time::Instant;

use shm_proto::Done;
use shm_proto::internal::control::Resized;
use shm_proto::internal::os::reserve::{Progress, Reservation};
use shm_proto::internal::ring::layout::DATA_OFFSET;
use shm_proto::internal::ring::link::ToWriter;

use super::Channel;
use crate::connections::{Connections, refusal};
use crate::event_loop::{ClientId, Interest, Timer, Token};
use crate::operation_log::{Operation, operation};
use crate::sizing::Action;

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
    pub(crate) fn resize(&mut self, connections: &mut Connections, client: ClientId, bytes: u64) {
        if self.handoff.is_some() {
            return self.resize_handoff(connections, client, bytes);
        }
        if let Err(refusal) = self.check_for(connections) {
            return connections.reply(client, Err(refusal), Vec::new());
        }
        if bytes < self.sizing.capacity() && self.sizing.bounds().fit(bytes).is_some() {
            self.start_helper(connections);
        }
        let actions = self.sizing.ask(Instant::now(), client, bytes, &self.segment.free());
        self.carry_out(connections, actions);
    }

    /// A client that waits for an answer is gone.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.sizing.forget(client);
    }

    /// Gives back memory that has not been needed for a while.
    pub(super) fn shrink_unused(&mut self, connections: &mut Connections, now: Instant, target: u64) {
        self.start_helper(connections);
        let actions = self.sizing.low_use(now, target);
        self.carry_out(connections, actions);
    }

    /// The reservation under way has something to tell.
    pub(crate) fn reservation_ready(&mut self, connections: &mut Connections) {
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
                self.end_reservation(connections);
                self.sizing.finished(now, &self.segment.free())
            }
            Ok(Progress::Failed { source, .. }) => self.reservation_failed(connections, &source.to_string()),
            Err(e) => self.reservation_failed(connections, &e.to_string()),
        };
        self.carry_out(connections, actions);
    }

    fn reservation_failed(&mut self, connections: &mut Connections, reason: &str) -> Vec<Action> {
        self.end_reservation(connections);
        // Before what the attempt took is given back: this is what it met.
        let free = self.segment.free();
        self.sizing.failed(Instant::now(), reason, &free)
    }

    pub(super) fn end_reservation(&mut self, connections: &mut Connections) {
        if let Some((reservation, _)) = self.reservation.take() {
            connections.events.remove(&reservation);
        }
    }

    /// A change of size was waited for.
    pub(crate) fn resize_due(&mut self, connections: &mut Connections) {
        let actions = self.sizing.tick(Instant::now(), &self.segment.free());
        self.carry_out(connections, actions);
    }

    /// Carries actions out, in order, and those that follow from failures.
    pub(super) fn carry_out(&mut self, connections: &mut Connections, actions: Vec<Action>) {
        let mut queue = std::collections::VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Reserve { from, to } => queue.extend(self.reserve(connections, from, to)),
                Action::CancelReservation => self.end_reservation(connections),
                Action::Tell(line) => self.tell(connections, line),
                Action::Cut { to, after } => {
                    let readers = &self.readers;
                    self.segment.cut(to, after, |position| readers.values().all(|reader| reader.is_past(position)));
                }
                Action::Done { client, old, asked, new, pending } => {
                    let resized = Resized { channel: self.config.name.clone(), old, asked, new, pending };
                    connections.reply(client, Ok(Done::Resize(resized)), Vec::new());
                }
                Action::Refuse { client, kind, message } => {
                    let message = format!("channel {}: {message}", self.config.name);
                    connections.reply(client, Err(refusal(kind, message)), Vec::new());
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
        connections.events.set_timer(Timer::Resize(self.id), self.sizing.deadline());
    }

    fn resized(&self, event: &'static str, old: u64, new: u64) -> Operation {
        let resized = operation(event).on(&self.config.name);
        let resized = if self.handoff.is_some() { resized.text("part", "feed") } else { resized };
        resized.number("old", old).number("new", new)
    }

    fn reserve(&mut self, connections: &mut Connections, from: u64, to: u64) -> Vec<Action> {
        let started = Reservation::start(self.segment.file(), DATA_OFFSET + from, DATA_OFFSET + to, STEP);
        let watched = started.and_then(|reservation| {
            connections.events.add(&reservation, Token::Reservation(self.id), Interest::READ)?;
            Ok(reservation)
        });
        match watched {
            Ok(reservation) => {
                self.reservation = Some((reservation, Instant::now()));
                Vec::new()
            }
            Err(e) => self.reservation_failed(connections, &e.to_string()),
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
}
