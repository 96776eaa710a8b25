//! A source between two programs of the same process: what it reads from, and where it stands.

use std::io;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use shm_proto::internal::framing::{Pump, PumpState};

use super::clients::{Clients, PackedClients};
use super::exec::{Exec, PackedExec};
use super::fifo::{Fifo, PackedFifo};
use super::report::Figures;
use super::stdin::Stdin;
use super::tail::{PackedTail, Tail};
use super::{Cutting, Input};
use crate::access::Access;
use crate::config::SourceKind;
use crate::handover::{Blob, Luggage, Parcel};

/// A source that rests: it has read nothing that is not published, or has it here.
#[derive(Debug)]
pub(crate) struct Rested(pub(super) Box<dyn Input>);

/// A source, packed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedSource {
    pub(crate) figures: Figures,
    /// Nothing of a source that has ended, or was not started yet.
    pub(crate) input: Option<PackedInput>,
}

/// What each kind of source leaves.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PackedInput {
    Stdin(Option<PackedPump>),
    Fifo(PackedFifo),
    Clients(PackedClients),
    Exec(PackedExec),
    Tail(PackedTail),
}

/// What was read of an input and not published.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedPump {
    state: PumpState,
    bytes: Blob,
}

impl PackedPump {
    /// Packs a pump.
    ///
    /// # Errors
    /// When there is no memory for its bytes.
    pub(super) fn pack(pump: &Pump, parcel: &mut Parcel) -> io::Result<Self> {
        let mut state = pump.state();
        let bytes = parcel.bytes(&std::mem::take(&mut state.bytes))?;
        Ok(Self { state, bytes })
    }

    /// `pump` is one for the same input that has not begun.
    ///
    /// # Errors
    /// When the bytes are not there.
    pub(super) fn unpack(mut self, pump: Pump, luggage: &Luggage) -> io::Result<Pump> {
        self.state.bytes = luggage.bytes(self.bytes)?;
        Ok(pump.going_on(self.state))
    }
}

impl Rested {
    /// Packs it for the next program. It is still whole then.
    ///
    /// # Errors
    /// When descriptors or memory have run out.
    pub(crate) fn pack(&self, parcel: &mut Parcel) -> io::Result<PackedInput> {
        self.0.pack(parcel)
    }

    /// Unpacks what the program before this one has left of the same source.
    ///
    /// # Errors
    /// When it cannot be what such a source leaves.
    pub(crate) fn unpack(
        source: &SourceKind,
        packed: PackedInput,
        write: &Access,
        cutting: Cutting,
        luggage: &Luggage,
    ) -> io::Result<Self> {
        let write = || Arc::new(Mutex::new(write.clone()));
        let own = |pump: PackedPump| pump.unpack(cutting.pump().map_err(io::Error::other)?, luggage);
        let input: Box<dyn Input> = match (source, packed) {
            (SourceKind::Stdin, PackedInput::Stdin(pump)) => {
                Box::new(Stdin { input: io::stdin(), pump: pump.map(own).transpose()? })
            }
            (SourceKind::Fifo(path, access), PackedInput::Fifo(packed)) => {
                Box::new(Fifo::unpack(path, *access, packed, cutting, luggage)?)
            }
            (SourceKind::Unix(_, packets), PackedInput::Clients(packed)) => {
                Box::new(Clients::unpack(*packets, write(), packed, cutting, luggage)?)
            }
            (SourceKind::Exec(command), PackedInput::Exec(packed)) => {
                Box::new(Exec::unpack(command.clone(), packed, cutting, luggage)?)
            }
            (SourceKind::Tail(path), PackedInput::Tail(packed)) => {
                Box::new(Tail::unpack(path, packed, cutting, luggage)?)
            }
            (source, packed) => {
                return Err(io::Error::other(format!("the source is {source}, and this was left: {packed:?}")));
            }
        };
        Ok(Self(input))
    }
}
