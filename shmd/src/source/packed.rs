//! A source between two programs of the same process: what it reads from, and where it stands.

use std::io;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::clients::Clients;
use super::exec::Exec;
use super::fifo::Fifo;
use super::packed_pump::PackedPump;
use super::report::Figures;
use super::stdin::Stdin;
use super::tail::Tail;
use super::{Cutting, Input, PackedInput};
use crate::access::Access;
use crate::config::SourceKind;
use crate::handover::{Luggage, Parcel};

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
