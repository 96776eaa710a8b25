//! The end of a channel: everybody is told, and nobody is waited for.

use std::sync::atomic::Ordering;
use std::time::Instant;

use shm_proto::internal::ring::layout::control;
use shm_proto::internal::ring::link::ToReader;

use super::{Channel, Reader};
use crate::cleanup;
use crate::config::{ChannelConfig, SourceKind};
use crate::connections::Connections;
use crate::lease::{Holder, Lease};
use crate::operation_log::{Operation, operation};

impl Channel {
    /// Whether [`close`](Self::close) was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The channel is going to close, and this is why. The first reason is the one that everybody is told.
    pub(crate) fn give_reason(&mut self, reason: &str) {
        self.farewell.get_or_insert_with(|| reason.to_owned());
    }

    /// Tells the readers that the channel is closing, and lets them go; the second time does nothing. Handing over has to
    /// be [ended](Self::end_handoff) then, which may take a while.
    pub(crate) fn close(&mut self, connections: &mut Connections) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let reason = self.farewell.clone().unwrap_or_else(|| "the channel is closing".to_owned());
        self.close_handoff(connections, &reason);
        self.reservation = None;
        for (&number, reader) in &self.readers {
            // The line first: a reader that sees the bit finds the reason on its connection.
            connections.send(reader.client, &ToReader::Closing { reason: reason.clone() }, Vec::new());
            reader.signal(control::CLOSING);
            connections.end(reader.client);
            if self.handoff.is_none()
                && let Some(left_out) = self.lines.admit(Instant::now())
            {
                detached(&self.config, number, reader).reason(&reason).left_out(left_out).info();
            }
        }
        // They have been let go. The feed's reader is the handoff's, which is not through yet.
        self.readers.retain(|_, _| self.handoff.is_some());
        if let Some(Lease { holder: Holder::Lent { client, .. }, .. }) = &self.lease {
            connections.end(*client);
        }
        if let Some(Lease { holder: Holder::Source(_), .. }) = &self.lease {
            operation("source-stuck")
                .on(&self.config.name)
                .text("source", &self.config.source)
                .reason("its thread does not end: a read or a write of its input may hang; it is left behind")
                .warn();
            if matches!(self.config.source, SourceKind::Fifo(..) | SourceKind::Unix(..)) {
                cleanup::note(&self.config.source, "its thread does not end");
            }
        }
    }

    /// Does not wait for a source that has not ended in time.
    pub(crate) fn leave_source_behind(&mut self) {
        if let Some(Lease { holder: Holder::Source(inside), .. }) = &mut self.lease {
            inside.abandon();
        }
    }
}

/// Begins the entry about a reader that is no longer attached, with what it has received and lost.
pub(super) fn detached(config: &ChannelConfig, number: u32, reader: &Reader) -> Operation {
    let line = &reader.page().line;
    let (received, lost) = (line.received.load(Ordering::Relaxed), line.lost.load(Ordering::Relaxed));
    let left = operation("detach").on(&config.name).number("reader", number).peer(&reader.peer);
    left.number("received", received).number("lost", lost)
}
