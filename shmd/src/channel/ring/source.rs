//! A ring's source: starting it, retrying, and handling its reports.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::{Error, Result, SystemError};

use super::Ring;
use super::claim::{self, Claim};
use super::lease::{Lease, Offer, To};
use super::role::Action;
use crate::config::{ChannelConfig, SourceKind};
use crate::connections::Connections;
use crate::event_loop::{Interest, Timer, Token};
use crate::operation_log::LogEvent;
use crate::source::{self, Cutting, FromSource, Opening, Report};

/// How the channel's messages are cut.
pub(super) fn cutting(config: &ChannelConfig) -> Cutting {
    let ChannelConfig { framing, keep_delimiter, max_message, flush, .. } = *config;
    Cutting { framing, keep_delimiter, max_message, flush }
}

/// A source that could not be started is retried after this time.
const RETRY: Duration = Duration::from_secs(1);

impl Ring {
    /// What a writer inside the daemon starts from, and the daemon's side of its page. The caller has claimed the
    /// segment.
    fn opening(&mut self) -> Result<(Opening, Offer)> {
        let shot = self.snapshot()?;
        let (mut offer, page) = Offer::new()?;
        let segment = self.segments.current_mut().for_writer()?;
        self.prepare(&mut offer);
        let opening = Opening {
            segment,
            lease: SharedPage::open(page.as_fd())?,
            geometry: self.segments.geometry().clone(),
            capacity: self.size.capacity(),
            left: self.segments.source(),
            counts: (shot.tail.seq, shot.dropped, shot.tail.bytes),
        };
        Ok((opening, offer))
    }

    /// Starts the channel's source, if there is one.
    ///
    /// # Errors
    /// If the source cannot be started.
    pub(in crate::channel) fn start_source(&mut self, connections: &mut Connections) -> Result<()> {
        self.try_source(connections).map_err(|e| match e {
            Error::System(SystemError { action, source, .. }) => {
                let (name, kind) = (&self.config.name, self.config.source.kind());
                Error::system(format!("channel {name}, source {kind}: {action}"), source)
            }
            e => e,
        })
    }

    /// Starts the source of a channel that a reload has created. A source that cannot be started now is retried: its
    /// directory may be missing, or a channel that the same reload removes may not have released the source yet
    /// (`taken`).
    ///
    /// # Errors
    /// Why the source must wait.
    pub(in crate::channel) fn start_source_unless(&mut self, connections: &mut Connections, taken: bool) -> Result<()> {
        if taken {
            let reason = std::io::Error::other("a channel that is being removed still has it");
            return Err(Error::system(self.config.source.to_string(), reason));
        }
        self.try_source(connections)
    }

    /// Tries again to start a source.
    pub(crate) fn retry_source(&mut self, connections: &mut Connections) {
        if self.has_writer() {
            // In the meantime, a program has borrowed the role, or the source was started when its segment was replaced.
            if self.writer.lease().is_some_and(|lease| lease.source().is_none()) {
                self.retry_later(connections);
            }
            return;
        }
        self.make_way(connections);
        let before = self.fed.as_ref().and_then(|report| report.stat().last_error);
        if let Err(e) = self.try_source(connections) {
            if before.as_ref() != Some(&e.to_string()) {
                self.source_waits(&e);
            }
            self.retry_later(connections);
        }
    }

    fn source_waits(&self, reason: &Error) {
        self.about(LogEvent::SourceWaits).text("source", &self.config.source).reason(reason).warn();
    }

    /// The source could not be started. Logs the reason, and schedules a retry.
    pub(in crate::channel) fn wait_for_source(&mut self, connections: &mut Connections, reason: &Error) {
        self.source_waits(reason);
        self.retry_later(connections);
    }

    fn retry_later(&self, connections: &mut Connections) {
        if let Some(report) = &self.fed {
            report.set(SourceState::Retrying);
        }
        connections.events.set_timer(Timer::Source(self.id), Some(Instant::now() + RETRY));
    }

    fn try_source(&mut self, connections: &mut Connections) -> Result<()> {
        if self.writer.expected().is_none() {
            self.take_up_growth(connections);
        }
        if self.config.source == SourceKind::None || self.source_is_over {
            return Ok(());
        }
        let fresh = || Arc::new(Report::new(&self.config.source));
        let report = Arc::clone(self.fed.get_or_insert_with(fresh));
        if let Err(former) = self.await_former() {
            // Said once: it is no fault of the source, and is asked again each second.
            if report.stat().state != SourceState::Retrying {
                self.source_waits(&former);
            }
            self.retry_later(connections);
            return Ok(());
        }
        match self.open_source(connections, &report) {
            // The segment was broken and has been replaced, and that has started the source.
            Ok(None) if self.has_writer() => Ok(()),
            Ok(None) => {
                report.set(SourceState::Retrying);
                connections.events.set_timer(Timer::Source(self.id), Some(Instant::now() + claim::LOOK));
                Ok(())
            }
            Ok(Some(lease)) => {
                self.begin(connections, lease);
                let about = self.about(LogEvent::Source).text("source", &self.config.source);
                let framed = self.config.source.is_framed();
                if framed { about.text("framing", self.config.framing) } else { about }.info();
                Ok(())
            }
            Err(e) => {
                report.set(SourceState::Failed);
                report.error(e.to_string());
                self.change_size(connections, |sizing, _| sizing.writer(Instant::now(), false));
                Err(e)
            }
        }
    }

    /// `None` if the segment cannot be claimed yet.
    fn open_source(&mut self, connections: &mut Connections, report: &Arc<Report>) -> Result<Option<Lease>> {
        self.check(connections)?;
        if self.has_writer() || self.claim_segment(connections)? == Claim::NotYet {
            return Ok(None);
        }
        let (opening, offer) = self.opening()?;
        let Self { config, rested, .. } = self;
        let cutting = cutting(config);
        let inside = source::start(&config.source, opening, cutting, &config.write, report, rested)?;
        connections.events.add(inside.bell(), Token::Source(self.id), Interest::READ)?;
        Ok(Some(offer.to(To::Source(inside))))
    }

    /// Handles the reports of the source's thread. If the thread has ended, returns the number of messages published,
    /// or why the source failed. A source that rests has not ended.
    pub(crate) fn source_ready(&mut self, connections: &mut Connections) -> Option<Result<u64>> {
        let mut ended = None;
        for said in self.writer.lease()?.source()?.take() {
            match said {
                FromSource::Line(line) => self.obey(connections, line),
                FromSource::Start(wanted) => wanted.start(),
                FromSource::Rested(rested) => self.source_rests(connections, rested),
                FromSource::Ended(outcome) => ended = Some(outcome),
            }
        }
        let outcome = ended?;
        let (source, actions) = self.writer.source_ended();
        if let Some(mut inside) = source {
            connections.events.remove(inside.bell());
            inside.join();
            let told = |event| self.about(event).text("source", inside.kind());
            match &outcome {
                Ok(messages) => told(LogEvent::SourceEnd).number("messages", *messages).info(),
                Err(e) => told(LogEvent::SourceFailed).reason(e).warn(),
            }
        }
        // A channel that is being removed waits for this end.
        let resumes = actions.contains(&Action::Resume) && !self.removal.has_begun();
        self.perform(connections, actions, "");
        (!resumes).then_some(outcome)
    }

    /// Restarts a source that had to end because its segment was broken.
    pub(super) fn resume_source(&mut self, connections: &mut Connections) {
        if !self.writer.may_resume() || self.fed.is_none() || self.removal.has_begun() {
            return;
        }
        if let Err(e) = self.try_source(connections) {
            self.wait_for_source(connections, &e);
        }
    }

    /// Who may write has changed: tells a listening source.
    pub(in crate::channel) fn tell_source(&self) {
        if let Some(inside) = self.writer.lease().and_then(Lease::source) {
            inside.set_write(&self.config.write);
        }
    }

    /// Stops waiting for a source that has not ended in time.
    pub(crate) fn leave_source_behind(&mut self) {
        self.writer.abandon_source();
    }
}
