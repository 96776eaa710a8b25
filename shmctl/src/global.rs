//! The options of every command, and a request to the daemon that they lead to.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use shm_proto::internal::client::PATIENCE_VARIABLE;
use shm_proto::internal::duration;
use shm_proto::{ChannelName, Client, Done, Endpoint, Expected, Request};

use crate::error::{Failure, Result};

/// The heading of the options of every command.
const GLOBAL: &str = "Options of every command";

/// How long the daemon may take to answer what it can answer at once.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// The options of every command, before and after its name.
#[derive(Debug, ClapArgs)]
pub struct Global {
    /// The channel. Not needed if the daemon has exactly one.
    #[arg(short, long, value_name = "NAME", env = "SHMD_CHANNEL", global = true, help_heading = GLOBAL)]
    pub channel: Option<ChannelName>,
    /// Whether the channel is named on the command line. One that is only named in the environment is the user's usual one.
    #[arg(skip)]
    pub is_given: bool,
    /// The daemon's runtime directory, where its socket is [default: the user's own daemon, else the system's].
    #[arg(long, value_name = "DIR", env = "SHMD_RUNTIME_DIR", value_hint = clap::ValueHint::DirPath, global = true,
          help_heading = GLOBAL)]
    pub runtime_dir: Option<PathBuf>,
    /// Report more on standard error; give it twice for debug messages.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = GLOBAL)]
    pub verbose: u8,
}

/// Checks what the library reads in the environment. The library itself ignores a wrong value.
///
/// # Errors
/// A usage error, as for a wrong value on the command line.
pub fn check_variables() -> Result<()> {
    let Some(text) = std::env::var_os(PATIENCE_VARIABLE).filter(|text| !text.is_empty()) else { return Ok(()) };
    match duration::parse(&text.to_string_lossy()) {
        Ok(_) => Ok(()),
        Err(e) => Err(Failure::Usage(format!("{PATIENCE_VARIABLE}: {e}"))),
    }
}

impl Global {
    /// The command has these channels as arguments. They win over the environment.
    pub fn name(&mut self, channels: &[ChannelName]) -> Result<()> {
        let Some(first) = channels.first() else { return Ok(()) };
        if let Some(option) = self.channel.as_ref().filter(|_| self.is_given)
            && let Some(other) = channels.iter().find(|name| *name != option)
        {
            return Err(Failure::Usage(format!("{other} and --channel {option} differ: name the channel once")));
        }
        self.channel = Some(first.clone());
        self.is_given = true;
        Ok(())
    }

    /// Where the daemon is.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::find(self.runtime_dir.as_deref())
    }

    /// The same, to attach only to a channel with this content.
    pub(crate) fn endpoint_expecting(&self, expected: Option<&Expected>) -> Endpoint {
        self.endpoint().expecting(expected.cloned())
    }

    /// Asks the daemon once.
    pub fn ask(&self, request: &Request) -> Result<Done> {
        self.ask_within(request, ANSWER)
    }

    /// Asks the daemon once something that may take `timeout`.
    pub fn ask_within(&self, request: &Request, timeout: Duration) -> Result<Done> {
        let mut client = Client::connect(&self.endpoint(), ANSWER)?;
        client.set_timeout(timeout);
        Ok(client.request(request)?)
    }
}
