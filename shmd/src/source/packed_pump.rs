//! What was read of an input and not published, packed for the next program.

use std::io;

use serde::{Deserialize, Serialize};
use shm_proto::internal::framing::{Pump, PumpState};

use crate::handover::{Blob, Luggage, Parcel};

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
