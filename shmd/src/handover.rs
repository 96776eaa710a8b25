//! What the daemon leaves to itself when it executes its file anew: see "The daemon's death" in `DESIGN.md`.
//!
//! A sealed memfd holds one JSON text and the bytes that it names by their place. Descriptors are named by their numbers. The
//! environment names the memfd, and the process that it is for.

mod parcel;

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use shm_proto::internal::control::VERSION;
use shm_proto::internal::ring::layout::{KNOWN_FEATURES, LAYOUT_VERSION};

pub(crate) use parcel::{Blob, Luggage, Parcel};

/// Names the memfd: `PID:DESCRIPTOR`.
pub(crate) const VARIABLE: &str = "SHMD_HANDOVER";
/// The version of everything in here. A program that has another is not executed.
const FORMAT: u32 = 1;

/// What a program is asked before it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Always `shmd`.
    daemon: String,
    /// Its version.
    pub(crate) version: String,
    /// The layout that it understands.
    layout: u32,
    /// The features that it understands, as bits.
    features: u64,
    /// The control protocol's version.
    protocol: u32,
    /// [`FORMAT`].
    handover: u32,
    /// It goes on with channels that were made at run time.
    #[serde(default)]
    created: bool,
}

impl Known {
    /// This program.
    pub(crate) fn own() -> Self {
        Self {
            daemon: "shmd".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout: LAYOUT_VERSION,
            features: KNOWN_FEATURES,
            protocol: VERSION,
            handover: FORMAT,
            created: true,
        }
    }

    /// Why a program that says this cannot go on in this one's place, if it cannot: with segments that have these features, and with
    /// channels that were made at run time if there are any.
    pub(crate) fn fault(&self, used: u64, has_created: bool) -> Option<String> {
        let own = Self::own();
        let missing = used & !self.features;
        if self.daemon != own.daemon {
            return Some(format!("it says that it is {:?}", self.daemon));
        }
        let version = &self.version;
        if missing != 0 {
            return Some(format!(
                "it is shmd {version} and does not know the features {missing:#x} of the present segments"
            ));
        }
        if has_created && !self.created {
            return Some(format!(
                "it is shmd {version} and would lose the channels that were created at run time (shmctl list shows them); remove \
                 them first, or restart shmd"
            ));
        }
        let pairs = [
            ("layout", self.layout, own.layout),
            ("control protocol", self.protocol, own.protocol),
            ("handover format", self.handover, own.handover),
        ];
        let (what, its, present) = pairs.into_iter().find(|(_, its, present)| its != present)?;
        Some(format!("it is shmd {version} with {what} {its}, and what runs has {what} {present}"))
    }
}

/// A connection that asks for nothing yet, or whose request is not answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedClient {
    /// The socket.
    pub(crate) socket: i32,
    /// The beginning of a request.
    pub(crate) received: Blob,
    /// The one that has asked for all this.
    pub(crate) asked: bool,
}

/// What the program before this one was.
#[derive(Debug)]
struct Before {
    version: String,
    by: String,
}

static BEFORE: OnceLock<Before> = OnceLock::new();

/// Whether this process is the daemon already, in another program. Its version and who asked for this one.
pub(crate) fn before() -> Option<(&'static str, &'static str)> {
    BEFORE.get().map(|before| (before.version.as_str(), before.by.as_str()))
}

/// There was a program of this version before this one in this process, and who asked for this one.
pub(crate) fn follow(version: &str, by: &str) {
    let _ = BEFORE.set(Before { version: version.to_owned(), by: by.to_owned() });
}

/// The number of the memfd that the program before this one has left, if there was one.
pub(crate) fn left() -> Option<i32> {
    let text = std::env::var(VARIABLE).ok()?;
    // That of another process may be inherited by a program that was started with its environment.
    let (pid, number) = text.split_once(':')?;
    (pid.parse() == Ok(std::process::id())).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_differs_in_anything_that_matters_is_refused_with_both_sides() {
        assert_eq!(Known::own().fault(KNOWN_FEATURES, true), None);
        assert_eq!(Known { version: "9.9.9".into(), features: !0, ..Known::own() }.fault(KNOWN_FEATURES, true), None);
        let older = Known { features: 0, created: false, ..Known::own() };
        assert_eq!(older.fault(0, false), None, "nothing has what it does not know");
        assert!(older.fault(1, false).unwrap().contains("features 0x1"));
        assert!(older.fault(0, true).unwrap().contains("created at run time"));
        for (other, expected) in [
            (Known { layout: 99, ..Known::own() }, "layout 99"),
            (Known { protocol: 98, ..Known::own() }, "control protocol 98"),
            (Known { handover: 97, ..Known::own() }, "handover format 97"),
            (Known { daemon: "sshd".into(), ..Known::own() }, "\"sshd\""),
        ] {
            let fault = other.fault(0, false).unwrap();
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
