//! A ring's memory: carries out what [`Sizing`] decides, with reservations, cuts, lines to the writer, answers.

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

/// Memory is reserved in steps of this many bytes; the writer may use each as soon as it is there.
const STEP: u64 = 16 << 20;

/// The size of a ring, and what is being done about it.
#[derive(Debug)]
pub(in crate::channel) struct Size {
    sizing: Sizing,
    reservation: Option<Reservation>,
    resizes: u64,
    low_use: LowUse,
    /// A growth that a dead daemon had begun.
    left: Option<(u64, By)>,
    /// What the next daemon is told, and in which segment.
    noted: (u64, SizeNote),
}

impl Size {
    /// All of `capacity` has memory behind it.
    pub(super) fn new(bounds: Bounds, capacity: u64) -> Self {
        let (sizing, noted) = (Sizing::new(bounds, capacity), (0, SizeNote::default()));
        Self { sizing, reservation: None, resizes: 0, low_use: LowUse::default(), left: None, noted }
    }

    /// The same of a segment that a dead daemon has left with this note. A size that the bounds do not allow now is not made.
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

    /// What the writer may use now.
    pub(in crate::channel) fn capacity(&self) -> u64 {
        self.sizing.capacity()
    }

    /// The size that is not in effect yet.
    pub(in crate::channel) fn pending(&self) -> Option<u64> {
        self.sizing.pending().or(self.left.map(|(goal, _)| goal))
    }

    /// Whether a dead daemon has left something to do.
    pub(super) fn has_left_over(&self) -> bool {
        self.left.is_some()
    }

    /// Changes that took effect.
    pub(in crate::channel) fn resizes(&self) -> u64 {
        self.resizes
    }

    /// The size that the ring has, or is to have.
    pub(super) fn goal(&self) -> u64 {
        self.pending().unwrap_or(self.sizing.capacity())
    }

    /// Whether a shrink is under way.
    pub(super) fn is_shrinking(&self) -> bool {
        self.sizing.shrinking().is_some()
    }

    /// Other limits. What is outside them stays until it changes.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.sizing.set_bounds(bounds);
    }

    /// A writer is on its way to carry a shrink out.
    pub(super) fn expect_writer(&mut self) {
        self.sizing.expect_writer();
    }

    /// A writer came: the lines that it has to be told first.
    pub(super) fn writer_came(&mut self) -> impl Iterator<Item = ToWriter> {
        self.sizing.writer(Instant::now(), true).into_iter().filter_map(|action| match action {
            Action::Tell(line) => Some(line),
            _ => None,
        })
    }

    /// The writer asks for memory: the ring is in use.
    pub(super) fn is_pressed(&mut self) {
        self.low_use.reset();
    }

    /// Ends the reservation under way, if there is one.
    pub(super) fn end_reservation(&mut self, connections: &mut Connections) {
        if let Some(reservation) = self.reservation.take() {
            connections.events.remove(&reservation);
        }
    }

    /// The ring closes: nobody waits for memory any more.
    pub(super) fn close(&mut self) {
        self.reservation = None;
    }
}

impl Ring {
    /// A resize request; it is answered when it is done or refused.
    pub(in crate::channel) fn resize(&mut self, connections: &mut Connections, client: ClientId, bytes: u64) {
        if let Err(refusal) = self.check_for(connections) {
            return connections.reply(client, Err(refusal), Vec::new());
        }
        // The newest order wins.
        self.size.left = None;
        if bytes < self.size.capacity() && self.size.sizing.bounds().fit(bytes).is_some() {
            self.start_helper(connections);
        }
        self.change_size(connections, |sizing, free| sizing.ask(Instant::now(), client, bytes, free));
    }

    /// A client that waits for an answer is gone.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.size.sizing.forget(client);
        self.stops_asking(client);
    }

    /// Something happens to the size: its machine decides, and this ring does it.
    pub(super) fn change_size(
        &mut self,
        connections: &mut Connections,
        event: impl FnOnce(&mut Sizing, &Free) -> Vec<Action>,
    ) {
        let actions = event(&mut self.size.sizing, &self.segments.current().free());
        self.carry_out(connections, actions);
    }

    /// Once a second, while it is in use or there is memory to give back.
    pub(in crate::channel) fn look_after_size(&mut self, connections: &mut Connections, now: Instant, shot: &Snapshot) {
        self.settle_segment();
        if self.writer.expected().is_none_or(|until| now >= until) {
            self.take_up_growth(connections);
        }
        self.resume_shrink(connections, now);
        let Some(after) = self.config.shrink_after else { return };
        // Where nobody can carry it out now, the time for it has not come.
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

    /// Goes on with a growth that a dead daemon had begun.
    pub(super) fn take_up_growth(&mut self, connections: &mut Connections) {
        if let Some((goal, by)) = self.size.left.take() {
            self.change_size(connections, |sizing, free| sizing.take_up_growth(Instant::now(), goal, by, free));
        }
    }

    /// Notes for the next daemon what is being done, if that has changed.
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

    /// The reservation under way has something to tell.
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
        // Before what the attempt took is given back: this is what it met.
        let free = self.segments.current().free();
        self.size.sizing.failed(Instant::now(), reason, &free)
    }

    /// A change of size was waited for.
    pub(crate) fn resize_due(&mut self, connections: &mut Connections) {
        self.change_size(connections, |sizing, free| sizing.tick(Instant::now(), free));
    }

    /// Carries actions out, in order, and those that follow from failures.
    fn carry_out(&mut self, connections: &mut Connections, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
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
                    connections.reply(client, Ok(Done::Resize(resized)), Vec::new());
                }
                Action::Refuse { client, kind, message } => {
                    let refusal = channel_refusal(&self.config.name, kind, message);
                    connections.reply(client, Err(refusal), Vec::new());
                }
                // It had that size before.
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
        connections.events.set_timer(Timer::Resize(self.id), self.size.sizing.deadline());
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

    /// Cuts what had to be left for readers that have gone on since.
    pub(super) fn settle_segment(&mut self) {
        if self.segments.current().is_unsettled() && !self.size.sizing.growing() {
            let (readers, capacity) = (&self.readers, self.size.capacity());
            self.segments.current_mut().settle(capacity, |position| readers.are_past(position));
        }
    }
}
