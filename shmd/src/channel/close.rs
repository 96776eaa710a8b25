//! The end of a channel: everybody is told, and nobody is waited for.

use shm_proto::control::ReaderEvent;
use shm_proto::ring::layout::control;

use super::Channel;
use crate::hub::Hub;
use crate::journal::operation;
use crate::lease::{Holder, Lease};

impl Channel {
    /// Whether [`close`](Self::close) was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Tells the readers that the channel is closing, and lets them go; the second time does nothing. Handing over has to
    /// be [ended](Self::end_handoff) then, which may take a while.
    pub(crate) fn close(&mut self, hub: &mut Hub, reason: &str) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.close_handoff(hub, reason);
        self.reservation = None;
        for reader in self.readers.values() {
            reader.signal(control::CLOSING);
            hub.send(reader.client, &ReaderEvent::Closing { reason: reason.to_owned() }, Vec::new());
            hub.end(reader.client);
        }
        if let Some(Lease { holder: Holder::Lent { client, .. }, .. }) = &self.lease {
            hub.end(*client);
        }
        if let Some(Lease { holder: Holder::Source(_), .. }) = &self.lease {
            operation("source-stuck")
                .on(&self.config.name)
                .text("source", &self.config.source)
                .reason("its thread does not end: a read or a write of its input may hang; it is left behind")
                .warn();
        }
    }

    /// Does not wait for a source that has not ended in time.
    pub(crate) fn leave_source_behind(&mut self) {
        if let Some(Lease { holder: Holder::Source(inside), .. }) = &mut self.lease {
            inside.abandon();
        }
    }
}
