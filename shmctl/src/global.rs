//! The options of every command, and a request to the daemon that they lead to.

use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args as ClapArgs};
use shm_proto::internal::client::PATIENCE_VARIABLE;
use shm_proto::internal::duration;
use shm_proto::{ChannelName, Client, Done, Endpoint, Expected, Request};

use crate::error::{Failure, Result};

/// The heading of the options of every command.
const GLOBAL: &str = "Options of every command";

/// How long the daemon may take to answer what it can answer at once.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// The options of every command, before and after its name.
#[derive(Debug, Default, ClapArgs)]
pub struct Global {
    /// The channel. Not needed if the daemon has exactly one. May be given several times to commands that take several channels.
    #[arg(id = "channel", short = 'c', long = "channel", value_name = "NAME", env = "SHMD_CHANNEL", global = true,
          action = ArgAction::Append, help_heading = GLOBAL)]
    channels: Vec<ChannelName>,
    /// The channel that is named as an argument or in an option; of several, the first.
    #[arg(skip)]
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
    /// No channel, and this runtime directory.
    pub(crate) fn in_dir(runtime_dir: Option<PathBuf>) -> Self {
        Global { runtime_dir, ..Global::default() }
    }

    /// Takes over what was found on the command line and in the environment.
    pub fn take_options(&mut self, matches: &ArgMatches) {
        self.is_given = matches.value_source("channel") == Some(ValueSource::CommandLine);
        self.channel = self.channels.first().cloned();
    }

    /// The channels that are named, after [`name_several`](Self::name_several); before it, those of the option.
    pub fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    /// The command takes one channel.
    ///
    /// # Errors
    /// A usage error, if the option is there more than once.
    pub fn one(&self) -> Result<()> {
        match self.channels.as_slice() {
            [] | [_] => Ok(()),
            [first, second, ..] => {
                Err(Failure::Usage(format!("--channel {first} and --channel {second}: this command takes one channel")))
            }
        }
    }

    /// The command takes one channel, and this is its argument. It wins over the environment.
    ///
    /// # Errors
    /// A usage error, if the option names another one.
    pub fn name(&mut self, channel: Option<&ChannelName>) -> Result<()> {
        self.one()?;
        let Some(channel) = channel else { return Ok(()) };
        if let Some(option) = self.channel.as_ref().filter(|_| self.is_given)
            && option != channel
        {
            return Err(Failure::Usage(format!("{channel} and --channel {option} differ: name the channel once")));
        }
        self.channel = Some(channel.clone());
        self.is_given = true;
        Ok(())
    }

    /// The command takes several channels, and these are its arguments. They win over the environment.
    ///
    /// # Errors
    /// A usage error, if a channel is named twice, or in the option alone while others are arguments.
    pub fn name_several(&mut self, arguments: &[ChannelName]) -> Result<()> {
        if let Some(first) = arguments.first() {
            let mut options = self.channels.iter().filter(|_| self.is_given);
            if let Some(option) = options.find(|option| !arguments.contains(option)) {
                return Err(Failure::Usage(format!("{first} and --channel {option} differ: name each channel once")));
            }
            self.channels = arguments.to_vec();
            self.is_given = true;
        }
        let twice = self.channels.iter().enumerate().find(|(place, name)| self.channels[..*place].contains(name));
        if let Some((_, twice)) = twice {
            return Err(Failure::Usage(format!("channel {twice} is named twice: name each channel once")));
        }
        self.channel = self.channels.first().cloned();
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
