//! Everything that the daemon leaves to the next program in its process.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shm_proto::ChannelName;

use crate::handover::{self, Luggage, PackedClient};
use crate::source::PackedSource;

/// Everything that is left to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// The version of the program that leaves it.
    pub(crate) version: String,
    /// Who asked for it.
    pub(crate) by: String,
    /// Where the first program was started, which paths on the command line are relative to.
    pub(crate) start_dir: PathBuf,
    /// The lock file, and whether a program in this process has made its directory.
    pub(crate) lock: i32,
    pub(crate) made_dir: bool,
    /// The control socket, listening.
    pub(crate) socket: i32,
    /// The service manager keeps it.
    #[serde(default)]
    pub(crate) socket_is_kept: bool,
    pub(crate) clients: Vec<PackedClient>,
    pub(crate) sources: Vec<(ChannelName, PackedSource)>,
}

/// Takes what the program before this one has left, if there was one.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn take() -> io::Result<Option<(Handover, Luggage)>> {
    let Some(number) = handover::left() else { return Ok(None) };
    let (left, luggage): (Handover, Luggage) = Luggage::open(number)?;
    handover::follow(&left.version, &left.by);
    Ok(Some((left, luggage)))
}
