//! A ring's source rests while the daemon executes its file anew, and goes on in the next program, or in this one if that fails.

use std::io;
use std::sync::Arc;

use super::Ring;
use super::source::cutting;
use crate::config::SourceKind;
use crate::connections::Connections;
use crate::handover::{Luggage, Parcel};
use crate::operation_log::LogEvent;
use crate::source::{PackedSource, Report, Rested};

impl Ring {
    /// Makes the source rest. It says so when it does.
    pub(crate) fn rest_source(&mut self) {
        let Some(lease) = self.writer.lease() else { return };
        let Some(inside) = lease.source() else { return };
        inside.rest(true);
        // It may wait for input, for the daemon, or for a reader.
        lease.announce();
        inside.ring();
        self.readers.release_writer();
    }

    /// Whether the source runs. One that rests does not.
    pub(crate) fn has_running_source(&self) -> bool {
        self.writer.lease().is_some_and(|lease| lease.source().is_some())
    }

    /// Whether the source rests.
    pub(crate) fn rests(&self) -> bool {
        self.rested.is_some()
    }

    /// The source's thread has ended, to rest.
    pub(super) fn source_rests(&mut self, connections: &mut Connections, rested: Rested) {
        // A shrink waits for the next writer, which is this source again.
        let (source, _) = self.writer.source_ended();
        if let Some(mut inside) = source {
            connections.events.remove(inside.bell());
            inside.join();
        }
        self.rested = Some(rested);
    }

    /// Lets a source go on that rests, or that was told to.
    pub(crate) fn wake_source(&mut self, connections: &mut Connections) {
        if let Some(inside) = self.writer.lease().and_then(|lease| lease.source()) {
            inside.rest(false);
        }
        if self.rested.is_some()
            && let Err(e) = self.start_source(connections)
        {
            self.wait_for_source(connections, &e);
        }
    }

    /// Packs the source for the next program; `None` if the channel has none, or it was not started yet.
    ///
    /// # Errors
    /// When descriptors or memory have run out.
    pub(crate) fn pack_source(&self, parcel: &mut Parcel) -> io::Result<Option<PackedSource>> {
        let Some(report) = &self.fed else { return Ok(None) };
        let input = self.rested.as_ref().map(|rested| rested.pack(parcel)).transpose()?;
        Ok(Some(PackedSource { figures: report.figures(), input }))
    }

    /// Takes what the program before this one has left of the source, which is then started with that.
    pub(crate) fn unpack_source(&mut self, packed: PackedSource, luggage: &Luggage) {
        let PackedSource { figures, input } = packed;
        if self.config.source == SourceKind::None {
            return;
        }
        self.source_is_over = figures.have_ended() && input.is_none();
        let report = Report::new(&self.config.source);
        report.go_on_from(figures);
        self.fed = Some(Arc::new(report));
        let config = &self.config;
        let rested = input.map(|input| Rested::unpack(&config.source, input, &config.write, cutting(config), luggage));
        match rested.transpose() {
            Ok(rested) => self.rested = rested,
            Err(e) => {
                let reason = format!("what the program before this one had read and not published is lost: {e}");
                self.about(LogEvent::SourceFailed).text("source", &self.config.source).reason(reason).error();
            }
        }
    }

    /// Whether a child of the daemon puts memory behind the segment now.
    pub(crate) fn is_reserving(&self) -> bool {
        self.size.is_reserving()
    }

    /// Ends the child that shrinks the ring, if there is one: the next program starts another, and so does this one if it goes on.
    pub(crate) fn end_helper(&mut self) {
        self.writer.end_helper();
    }
}
