//! What the size's state machine asks for.

use shm_proto::ErrorKind;
use shm_proto::internal::ring::link::ToWriter;

use crate::event_loop::ClientId;

/// The origin of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The writer, because the ring is pressed or a message does not fit.
    Writer,
    /// The policy, after a time of low use.
    LowUse,
    /// A resize request.
    Operator,
    /// A move to a new segment, which begins small.
    Move,
    /// The size that the channel had when its daemon died, and of which its last writer did not know.
    Adoption,
}

impl By {
    /// For the note to the next daemon.
    pub(crate) fn number(self) -> u64 {
        match self {
            By::Writer => 1,
            By::LowUse => 2,
            By::Operator => 3,
            By::Move => 4,
            By::Adoption => 5,
        }
    }

    /// The other way round.
    pub(crate) fn of_number(number: u64) -> Option<Self> {
        let all = [By::Writer, By::LowUse, By::Operator, By::Move, By::Adoption];
        all.into_iter().find(|by| by.number() == number)
    }

    /// For the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            By::Writer => "writer",
            By::LowUse => "low-use",
            By::Operator => "operator",
            By::Move => "move",
            By::Adoption => "adoption",
        }
    }
}

/// What the channel has to do, in this order. Sizes are bytes of the data area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start reserving memory.
    Reserve { from: u64, to: u64 },
    /// End the reservation under way.
    CancelReservation,
    /// Put this on the writer's link.
    Tell(ToWriter),
    /// Give back the memory above. Readers before the position `after` may still stand there; without a position none does.
    Cut { to: u64, after: Option<u64> },
    /// Answer a resize request.
    Done { client: ClientId, old: u64, asked: u64, new: u64, pending: bool },
    /// Refuse a resize request; the message lacks the channel's name in front.
    Refuse { client: ClientId, kind: ErrorKind, message: String },
    /// A growth is complete.
    Grew { old: u64, new: u64, by: By },
    /// A growth failed.
    NotGrown { asked: u64, reason: String },
    /// A shrink is complete.
    Shrank { old: u64, new: u64, by: By },
}
