//! A ring's memory: carries out the decisions of [`Sizing`], with reservations, truncations, lines to the writer, and
//! answers.

use std::collections::VecDeque;
use std::time::Instant;

use shm_proto::internal::control::Resized;
use shm_proto::internal::os::memory::Free;
use shm_proto::internal::os::reserve::{Progress, Reservation};
use shm_proto::internal::ring::layout::DATA_OFFSET;
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::internal::ring::{SizeNote, Snapshot, note_size};
use shm_proto::{Done, Error};

use super::Ring;
use crate::connections::{Connections, channel_refusal};
use crate::event_loop::{ClientId, Interest, Timer, Token};
use crate::operation_log::{LogEvent, Operation};
use crate::policy::{Bounds, LowUse};
use crate::sizing::{Action, By, Sizing};

/// Memory is reserved in steps of this many bytes. The writer may use each step as soon as it is reserved.
const STEP: u64 = 16 << 20;

/// The size of a ring, and the change that is in progress.
#[derive(Debug)]
pub(in crate::channel) struct Size {
    sizing: Sizing,
    reservation: Option<Reservation>,
    resizes: u64,
    low_use: LowUse,
    /// A growth that a dead daemon had begun.
    left: Option<(u64, By)>,
    /// The note for the next daemon, and in which segment it is.
    noted: (u64, SizeNote),
}

impl Size {
    /// All of `capacity` has memory.
    pub(super) fn new(bounds: Bounds, capacity: u64) -> Self {
        let (sizing, noted) = (Sizing::new(bounds, capacity), (0, SizeNote::default()));
        Self { sizing, reservation: None, resizes: 0, low_use: LowUse::default(), left: None, noted }
    }

    /// The same for a segment that a dead daemon has left with this note. A size that the bounds do not allow now is
    /// not applied.
    pub(super) fn adopted(bounds: Bounds, capacity: u64, note: SizeNote) -> Self {
        let mut size = Self::new(bounds, capacity);
        size.resizes = note.resizes;
        match (bounds.fit(note.goal), By::of_number(note.by)) {
            (Some(goal), by) if goal > capacity => size.left = Some((goal, by.unwrap_or(By::Adoption))),
            // The next writer is told of it.
            (Some(goal), Some(by)) => size.sizing.take_up_shrink(Instant::now(), goal, by),
            _ => {}
        }
        size
    }

    /// The capacity that the writer may use now.
    pub(in crate::channel) fn capacity(&self) -> u64 {
        self.sizing.capacity()
    }

    /// The size that is not in effect yet.
    pub(in crate::channel) fn pending(&self) -> Option<u64> {
        self.sizing.pending().or(self.left.map(|(goal, _)| goal))
    }

    /// Whether a dead daemon has left a change to finish.
    pub(super) fn has_left_over(&self) -> bool {
        self.left.is_some()
    }

    /// Number of changes that took effect.
    pub(in crate::channel) fn resizes(&self) -> u64 {
        self.resizes
    }

    /// The size that the ring has, or will have.
    pub(super) fn goal(&self) -> u64 {
        self.pending().unwrap_or(self.sizing.capacity())
    }

    /// Whether a shrink is in progress.
    pub(super) fn is_shrinking(&self) -> bool {
        self.sizing.shrinking().is_some()
    }

    /// Sets new limits. A size outside them stays until it changes.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.sizing.set_bounds(bounds);
    }

    /// When requests that wait are looked at again at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sizing.deadline()
    }

    /// A writer is about to come and carry out a shrink.
    pub(super) fn expect_writer(&mut self) {
        self.sizing.expect_writer();
    }

    /// A writer has come: returns the lines that it must be told first.
    pub(super) fn writer_came(&mut self) -> impl Iterator<Item = ToWriter> {
        self.sizing.writer(Instant::now(), true).into_iter().filter_map(|action| match action {
            Action::Tell(line) => Some(line),
            _ => None,
        })
    }

    /// The writer asks for memory, so the ring is in use.
    pub(super) fn is_pressed(&mut self) {
        self.low_use.reset();
    }

    /// Whether a reservation is in progress.
    pub(super) fn is_reserving(&self) -> bool {
        self.reservation.is_some()
    }

    /// Ends the reservation in progress, if there is one.
    pub(super) fn end_reservation(&mut self, connections: &mut Connections) {
        if let Some(reservation) = self.reservation.take() {
            connections.events.remove(&reservation);
        }
    }

    /// The ring closes, so nobody waits for memory any more.
    pub(super) fn close(&mut self) {
        self.reservation = None;
    }
}

impl Ring {
    /// Handles a resize request, which is answered when it is done or refused.
    pub(in crate::channel) fn resize(&mut self, connections: &mut Connections, client: ClientId, bytes: u64) {
        if let Err(refusal) = self.check_for(connections) {
            return connections.reply(client, Err(refusal), Vec::new());
        }
        if self.size.sizing.bounds().fit(bytes).is_some() {
            // The newest request wins.
            self.size.left = None;
        }
        if self.size.sizing.needs_writer(bytes) {
            self.start_helper(connections);
        }
        self.change_size(connections, |sizing, free| sizing.ask(Instant::now(), client, bytes, free));
    }

    /// A client that waits for an answer is gone.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.size.sizing.forget(client);
        self.stops_asking(client);
    }

    /// Passes an event to the size's state machine, and carries out the actions that it returns.
    pub(super) fn change_size(
        &mut self,
        connections: &mut Connections,
        event: impl FnOnce(&mut Sizing, &Free) -> Vec<Action>,
    ) {
        let actions = event(&mut self.size.sizing, &self.segments.current().free());
        self.carry_out(connections, actions);
    }

    /// Called once per second, while the ring is in use or has memory to give back.
    pub(in crate::channel) fn look_after_size(&mut self, connections: &mut Connections, now: Instant, shot: &Snapshot) {
        self.settle_segment();
        if self.writer.expected().is_none_or(|until| now >= until) {
            self.take_up_growth(connections);
        }
        self.resume_shrink(connections, now);
        let Some(after) = self.config.shrink_after else { return };
        // If no process can carry out the shrink now, it is not started.
        if !self.may_shrink(connections) {
            return;
        }
        let used = self.used(shot);
        let Size { sizing, low_use, .. } = &mut self.size;
        if let Some(target) = low_use.sample(now, sizing.bounds(), sizing.capacity(), used, after) {
            self.start_helper(connections);
            self.change_size(connections, |sizing, _| sizing.low_use(now, target));
        }
    }

    /// Continues a growth that a dead daemon had begun.
    pub(super) fn take_up_growth(&mut self, connections: &mut Connections) {
        if let Some((goal, by)) = self.size.left.take() {
            self.change_size(connections, |sizing, free| sizing.take_up_growth(Instant::now(), goal, by, free));
        }
    }

    /// Notes the change in progress for the next daemon, if it differs from the last note.
    pub(super) fn note_size(&mut self) {
        let wish = self.size.left.or(self.size.sizing.wish());
        let (goal, by) = wish.map_or((self.size.capacity(), 0), |(goal, by)| (goal, by.number()));
        let note = SizeNote { goal, by, resizes: self.size.resizes, evicted: self.readers.evicted() };
        let noted = (self.segments.geometry().instance, note);
        if noted == self.size.noted {
            return;
        }
        match note_size(self.segments.current().file(), note) {
            Ok(()) => self.size.noted = noted,
            Err(e) => log::debug!("event=no-note channel={} reason={:?}", self.config.name, e.to_string()),
        }
    }

    /// The reservation in progress has something to report.
    pub(crate) fn reservation_ready(&mut self, connections: &mut Connections) {
        let Some(reservation) = &mut self.size.reservation else { return };
        let actions = match reservation.advance() {
            Ok(Progress::NotYet) => return,
            Ok(Progress::Reserved(length)) => {
                let bytes = length.saturating_sub(DATA_OFFSET);
                self.segments.current_mut().grown(bytes);
                self.size.sizing.reserved(bytes)
            }
            Ok(Progress::Done(length)) => {
                self.segments.current_mut().grown(length.saturating_sub(DATA_OFFSET));
                self.size.end_reservation(connections);
                self.size.sizing.finished(Instant::now(), &self.segments.current().free())
            }
            Ok(Progress::Failed { source, .. }) => self.reservation_failed(connections, &source.to_string()),
            Err(e) => self.reservation_failed(connections, &e.to_string()),
        };
        self.carry_out(connections, actions);
    }

    fn reservation_failed(&mut self, connections: &mut Connections, reason: &str) -> Vec<Action> {
        self.size.end_reservation(connections);
        // Measured before the memory that the attempt took is given back, because these are the conditions that the
        // attempt met.
        let free = self.segments.current().free();
        self.size.sizing.failed(Instant::now(), reason, &free)
    }

    /// A change of size has waited for this moment.
    pub(crate) fn resize_due(&mut self, connections: &mut Connections) {
        self.change_size(connections, |sizing, free| sizing.tick(Instant::now(), free));
    }

    /// Carries out actions, in order, and the actions that follow from failures.
    fn carry_out(&mut self, connections: &mut Connections, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
        let mut answers = Vec::new();
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Reserve { from, to } => queue.extend(self.reserve(connections, from, to)),
                Action::CancelReservation => self.size.end_reservation(connections),
                Action::Tell(line) => self.tell(connections, line),
                Action::Cut { to, after } => {
                    let readers = &self.readers;
                    self.segments.current_mut().cut(to, after, |position| readers.are_past(position));
                }
                Action::Done { client, old, asked, new, pending } => {
                    let mut resized = Resized::new(self.config.name.clone());
                    (resized.old, resized.asked, resized.new, resized.pending) = (old, asked, new, pending);
                    answers.push((client, Ok(Done::Resize(resized))));
                }
                Action::Refuse { client, kind, message } => {
                    answers.push((client, Err(channel_refusal(&self.config.name, kind, message))));
                }
                // The ring had that size before.
                Action::Grew { by: By::Adoption, .. } => {}
                Action::Grew { old, new, by } => self.resized(LogEvent::Grow, old, new).text("by", by.as_str()).info(),
                Action::Shrank { old, new, by } => {
                    self.resized(LogEvent::Shrink, old, new).text("by", by.as_str()).info()
                }
                Action::NotGrown { asked, reason } => {
                    self.about(LogEvent::GrowFailed).number("asked", asked).reason(reason).warn();
                }
            }
        }
        self.note_size();
        // After the note: a daemon that dies once it has answered leaves the size and the count that it has answered with.
        for (client, answer) in answers {
            connections.reply(client, answer, Vec::new());
        }
        connections.events.set_timer(Timer::Resize(self.id), self.size.deadline());
    }

    fn resized(&mut self, event: LogEvent, old: u64, new: u64) -> Operation {
        self.size.resizes = self.size.resizes.saturating_add(1);
        let resized = self.about(event);
        let resized = match self.part {
            Some(part) => resized.text("part", part),
            None => resized,
        };
        resized.number("old", old).number("new", new)
    }

    fn reserve(&mut self, connections: &mut Connections, from: u64, to: u64) -> Vec<Action> {
        let file = self.segments.current().file();
        let started = Reservation::start(file, DATA_OFFSET + from, DATA_OFFSET + to, STEP);
        let watched = started.map_err(Error::from).and_then(|reservation| {
            connections.events.add(&reservation, Token::Reservation(self.id), Interest::READ)?;
            Ok(reservation)
        });
        match watched {
            Ok(reservation) => {
                self.size.reservation = Some(reservation);
                Vec::new()
            }
            Err(e) => self.reservation_failed(connections, &e.to_string()),
        }
    }

    /// Truncates what had to be left for readers that have moved on since.
    pub(super) fn settle_segment(&mut self) {
        if self.segments.current().is_unsettled() && !self.size.sizing.growing() {
            let (readers, capacity) = (&self.readers, self.size.capacity());
            self.segments.current_mut().settle(capacity, |position| readers.are_past(position));
        }
    }
}
