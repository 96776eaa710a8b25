//! Who holds the writer role of a channel, from its beginning to its end, and what the writer has to say.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_proto::internal::control::Lent;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::link::{ToDaemon, ToWriter};
use shm_proto::{Done, Error, ErrorKind, Refusal, Result};

use super::moving::LastHolder;
use super::{Channel, Reader, resize};
use crate::client::Role;
use crate::config::SourceKind;
use crate::connections::{Connections, refusal};
use crate::event_loop::{ClientId, Interest, Timer, Token};
use crate::lease::{Holder, Lease, Offer};
use crate::operation_log::operation;
use crate::source::{self, Cutting, FromSource, Opening, Report, State};

/// Characters of a reason given by a writer that are repeated.
const REASON_CHARS: usize = 200;
/// A source that could not be started is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

impl Channel {
    /// Lends the writer role to a client, and answers it.
    ///
    /// # Errors
    /// The refusal to send instead.
    pub(crate) fn lend(
        &mut self,
        connections: &mut Connections,
        client: ClientId,
        program: Option<&str>,
    ) -> Result<(), Refusal> {
        if let Some(lease) = self.lease.as_ref().filter(|_| self.has_writer()) {
            return self.refuse(ErrorKind::WriterTaken, lease.refusal());
        }
        let Some(peer) = connections.peer(client, program) else { return Ok(()) };
        let is_helper = self.helper.as_ref().is_some_and(|helper| helper.pid() == peer.pid);
        if !is_helper {
            self.drop_own(connections);
        }
        self.check_for(connections)?;
        self.claim_segment(connections).map_err(|e| self.cannot_claim(&e))?;
        let made = Offer::new().and_then(|(offer, page)| {
            let fds = vec![self.segment.for_writer()?, page];
            connections.bind(client, Role::Writer(self.id))?;
            Ok((offer, fds))
        });
        let (mut offer, fds) = made.map_err(|e| self.error(&e))?;
        if !is_helper && let Some(left_out) = self.lines.admit(Instant::now()) {
            operation("lend").on(&self.config.name).peer(&peer).left_out(left_out).info();
        }
        self.last_holder = LastHolder::of(peer.pid);
        let capacity = self.sizing.capacity();
        let holder = if is_helper { Holder::Helper { client } } else { Holder::Lent { client, peer } };
        self.prepare(&mut offer);
        let lent = Lent { geometry: self.geometry.clone(), reserved: capacity, capacity };
        connections.reply(client, Ok(Done::Publish(lent)), fds);
        self.begin(connections, offer.to(holder));
        Ok(())
    }

    fn cannot_claim(&self, error: &Error) -> Refusal {
        match error {
            Error::System { source, .. } if source.kind() == std::io::ErrorKind::ResourceBusy => {
                refusal(ErrorKind::Busy, error.to_string())
            }
            error => self.error(error),
        }
    }

    /// What a new writer has to be told first: everybody who reads, and a shrink under way. It learns from its page that this
    /// is to come.
    fn prepare(&mut self, offer: &mut Offer) {
        for (&reader, _) in self.readers.iter().filter(|(_, reader)| !reader.evicted) {
            offer.put(ToWriter::ReaderJoined { reader });
        }
        self.sizing.writer(Instant::now(), true).into_iter().filter_map(resize::told).for_each(|line| offer.put(line));
    }

    /// Somebody else holds the role from now on.
    pub(super) fn begin(&mut self, connections: &mut Connections, lease: Lease) {
        self.lease = Some(lease);
        self.send_lines(connections);
    }

    /// What a writer inside the daemon starts from, and the daemon's side of its page.
    pub(super) fn opening(&mut self, connections: &mut Connections) -> Result<(Opening, Offer)> {
        self.check(connections)?;
        self.claim_segment(connections)?;
        let (mut offer, page) = Offer::new()?;
        let segment = self.segment.for_writer()?;
        self.prepare(&mut offer);
        let opening = Opening {
            segment,
            lease: SharedPage::open(page.as_fd())?,
            geometry: self.geometry.clone(),
            capacity: self.sizing.capacity(),
        };
        Ok((opening, offer))
    }

    /// Starts the channel's source, if it has one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start_source(&mut self, connections: &mut Connections) -> Result<()> {
        self.watch_handoff(connections)?;
        self.try_source(connections).map_err(|e| match e {
            Error::System { action, source } => {
                let (name, kind) = (&self.config.name, self.config.source.kind());
                Error::system(format!("channel {name}, source {kind}: {action}"), source)
            }
            e => e,
        })
    }

    /// Starts the source of a channel that a reload has made. One that cannot be started now is tried again and again: its
    /// directory may be missing, or a channel that the same reload removes has not let it go yet, `taken`. Why it
    /// has to wait, if it has to.
    pub(crate) fn start_source_or_retry(&mut self, connections: &mut Connections, taken: bool) -> Option<String> {
        let started = self.watch_handoff(connections).and_then(|()| {
            if taken {
                let reason = std::io::Error::other("a channel that is being removed still has it");
                return Err(Error::system(self.config.source.to_string(), reason));
            }
            self.try_source(connections)
        });
        started.err().map(|e| {
            let reason = e.to_string();
            operation("source-waits").on(&self.config.name).text("source", &self.config.source).reason(&reason).warn();
            self.retry_later(connections);
            reason
        })
    }

    /// Tries once more to start a source.
    pub(crate) fn retry_source(&mut self, connections: &mut Connections) {
        if self.has_writer() {
            // A program has borrowed the role meanwhile.
            return self.retry_later(connections);
        }
        self.drop_own(connections);
        let before = self.fed.as_ref().and_then(|report| report.stat().last_error);
        if let Err(e) = self.try_source(connections) {
            let reason = e.to_string();
            if before.as_ref() != Some(&reason) {
                operation("source-waits")
                    .on(&self.config.name)
                    .text("source", &self.config.source)
                    .reason(&reason)
                    .warn();
            }
            self.retry_later(connections);
        }
    }

    fn retry_later(&self, connections: &mut Connections) {
        if let Some(report) = &self.fed {
            report.set(State::Retrying);
        }
        connections.events.set_timer(Timer::Source(self.id), Some(Instant::now() + RETRY));
    }

    fn try_source(&mut self, connections: &mut Connections) -> Result<()> {
        if self.config.source == SourceKind::None {
            return Ok(());
        }
        let fresh = || Arc::new(Report::new(&self.config.source));
        let report = Arc::clone(self.fed.get_or_insert_with(fresh));
        match self.open_source(connections, &report) {
            Ok(lease) => {
                self.begin(connections, lease);
                let about = operation("source").on(&self.config.name).text("source", &self.config.source);
                let framed = self.config.source.is_framed();
                if framed { about.text("framing", self.config.framing) } else { about }.info();
                Ok(())
            }
            Err(e) => {
                report.set(State::Failed);
                report.error(e.to_string());
                let actions = self.sizing.writer(Instant::now(), false);
                self.carry_out(connections, actions);
                Err(e)
            }
        }
    }

    fn open_source(&mut self, connections: &mut Connections, report: &Arc<Report>) -> Result<Lease> {
        let (opening, offer) = self.opening(connections)?;
        let cutting = Cutting {
            framing: self.config.framing,
            keep_delimiter: self.config.keep_delimiter,
            max_message: self.config.max_message,
        };
        let inside = source::start(&self.config.source, opening, cutting, &self.config.write, report)?;
        connections.events.add(inside.bell(), Token::Source(self.id), Interest::READ)?;
        Ok(offer.to(Holder::Source(inside)))
    }

    /// The source's thread has said something. When it has ended: messages published, or why it failed.
    pub(crate) fn source_ready(&mut self, connections: &mut Connections) -> Option<Result<u64>> {
        let Some(Lease { holder: Holder::Source(inside), .. }) = &self.lease else { return None };
        let mut ended = None;
        for said in inside.take() {
            match said {
                FromSource::Line(line) => self.obey(connections, line),
                FromSource::Ended(outcome) => ended = Some(outcome),
            }
        }
        let outcome = ended?;
        if let Some(Lease { holder: Holder::Source(mut inside), .. }) = self.lease.take() {
            connections.events.remove(inside.bell());
            inside.join();
            let told = |event| operation(event).on(&self.config.name).text("source", inside.kind());
            match &outcome {
                Ok(messages) => told("source-end").number("messages", *messages).info(),
                Err(e) => told("source-failed").reason(e).warn(),
            }
        }
        self.writer_left(connections);
        if std::mem::take(&mut self.resumes) {
            self.resume_source(connections);
            return None;
        }
        Some(outcome)
    }

    /// Starts the source again that had to end because its segment was broken.
    pub(super) fn resume_source(&mut self, connections: &mut Connections) {
        if self.lease.is_some() || self.resumes || self.fed.is_none() || self.farewell.is_some() {
            return;
        }
        if let Err(e) = self.try_source(connections) {
            operation("source-waits").on(&self.config.name).text("source", &self.config.source).reason(e).warn();
            self.retry_later(connections);
        }
    }

    /// The lent writer's connection is gone, or is about to be.
    pub(crate) fn writer_gone(&mut self, connections: &mut Connections, client: ClientId) {
        let is_holders = |holder: &Holder| match holder {
            Holder::Lent { client: holder, .. } | Holder::Helper { client: holder } => *holder == client,
            Holder::Source(_) => false,
        };
        if let Some(lease) = self.lease.as_ref().filter(|lease| is_holders(&lease.holder)) {
            lease.end();
            // It may sleep for a reader.
            self.readers.values().for_each(Reader::release_writer);
            // It may have been about to wake one when it died or was stopped.
            self.readers.values().for_each(|reader| reader.signal(0));
        }
        match self.lease.take() {
            Some(Lease { holder: Holder::Lent { client: holder, peer }, .. }) if holder == client => {
                if let Some(left_out) = self.lines.admit(Instant::now()) {
                    operation("return").on(&self.config.name).peer(&peer).left_out(left_out).info();
                }
                self.writer_left(connections);
            }
            Some(Lease { holder: Holder::Helper { client: holder }, .. }) if holder == client => {
                self.helper_left(connections);
            }
            other => self.lease = other,
        }
    }

    fn writer_left(&mut self, connections: &mut Connections) {
        let actions = self.sizing.writer(Instant::now(), false);
        self.carry_out(connections, actions);
        self.take_over_shrink(connections);
    }

    /// A line from the writer.
    pub(crate) fn obey(&mut self, connections: &mut Connections, line: ToDaemon) {
        let now = Instant::now();
        match line {
            ToDaemon::Grow { capacity } => {
                self.low_use.reset();
                let actions = self.sizing.writer_asks(now, capacity, &self.segment.free());
                self.carry_out(connections, actions);
            }
            ToDaemon::Shrunk { id, after, .. } => {
                let actions = self.sizing.shrunk(id, after);
                self.carry_out(connections, actions);
                if let Some(helper) = &mut self.helper {
                    helper.has_shrunk |= self.sizing.shrinking().is_none();
                }
            }
            ToDaemon::Taken { lines } => {
                if let Some(lease) = &mut self.lease {
                    lease.taken(lines);
                    if lease.has_lines() {
                        self.send_lines(connections);
                    }
                }
            }
            ToDaemon::Broken { reason } => {
                let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect();
                if let Err(e) = self.heal(connections, &reason) {
                    operation("broken").on(&self.config.name).reason(e).error();
                }
            }
            ToDaemon::Evicted { reader, reason } | ToDaemon::Refused { reader, reason } => {
                let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect();
                self.mark_evicted(connections, reader, &reason, "writer");
            }
            ToDaemon::Overflow { dropped, overwritten } => {
                if let Some(left_out) = self.overflow_lines.admit(now) {
                    operation("overflow")
                        .on(&self.config.name)
                        .number("dropped", dropped)
                        .number("overwritten", overwritten)
                        .number("capacity", self.sizing.capacity())
                        .number("max", self.config.max)
                        .left_out(left_out)
                        .warn();
                }
            }
            // Said where the line was read.
            ToDaemon::Unknown => {}
        }
    }

    /// Tells the writer something, if there is a writer, and ends whatever sleep it is in.
    pub(super) fn tell(&mut self, connections: &mut Connections, line: ToWriter) {
        if let Some(lease) = &mut self.lease {
            lease.put(line);
            self.send_lines(connections);
        }
    }

    /// Sends the writer as many of the lines that wait as it is to be sent.
    pub(super) fn send_lines(&mut self, connections: &mut Connections) {
        if let Some(lease) = &mut self.lease {
            lease.send(connections, &self.readers);
            self.readers.values().for_each(Reader::release_writer);
        }
    }

    /// Lines that had to wait have gone out to the lent writer.
    pub(crate) fn announce(&self) {
        if let Some(lease) = &self.lease {
            lease.announce();
            self.readers.values().for_each(Reader::release_writer);
        }
    }

    /// Takes the writer role back; whoever holds it gives it up by going away.
    pub(crate) fn revoke(&mut self, connections: &mut Connections, reason: &str) {
        connections.events.set_timer(Timer::Source(self.id), None);
        self.give_reason(reason);
        let actions = self.sizing.close(reason);
        self.carry_out(connections, actions);
        self.drop_own(connections);
        self.tell(connections, ToWriter::Revoked { reason: reason.to_owned() });
    }
}
