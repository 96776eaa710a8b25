//! A file a command: its arguments, its help, its work.

pub(crate) mod bench;
pub(crate) mod evict;
pub(crate) mod handoff;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod read;
pub(crate) mod reload;
pub(crate) mod resize;
pub(crate) mod stat;
pub(crate) mod write;

use std::time::Duration;

use shm_proto::{Client, Done, Endpoint, Request};

use crate::args::{Args, Command, Global};
use crate::error::{Failure, Result};

/// How long the daemon may take to answer what it can answer at once.
const ANSWER: Duration = Duration::from_secs(10);

/// Carries out the command.
pub(crate) fn run(args: Args) -> Result<()> {
    let global = args.global;
    match args.command {
        Command::Read(args) => read::run(args, &global),
        Command::Write(args) => write::run(args, &global),
        Command::Stat(args) => stat::run(&args, &global),
        Command::List(args) => list::run(&args, &global),
        Command::Resize(args) => resize::run(&args, &global),
        Command::Evict(args) => evict::run(&args, &global),
        Command::Reload(args) => reload::run(&args, &global),
        Command::Log(args) => log::run(&args, &global),
        Command::Bench(args) => bench::run(&args, &global),
        Command::BenchWorker(args) => Ok(shm_bench::worker::run(&args)?),
    }
}

impl Global {
    /// Where the daemon is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::find(self.runtime_dir.as_deref())
    }

    /// Asks the daemon once.
    pub(crate) fn ask(&self, request: &Request) -> Result<Done> {
        self.ask_within(request, ANSWER)
    }

    /// Asks the daemon once something that may take `timeout`.
    pub(crate) fn ask_within(&self, request: &Request, timeout: Duration) -> Result<Done> {
        let mut client = Client::connect(&self.endpoint(), ANSWER)?;
        client.set_timeout(timeout);
        Ok(client.request(request)?)
    }
}

/// Nothing to show is no error, but nobody should have to guess why: the daemon names only what this user may use.
fn note_if_none<T>(channels: &[T]) {
    if channels.is_empty() {
        eprintln!("shmctl: no channel here that this user may read, write or administer");
    }
}

/// For an answer to another question than the one that was asked.
fn unexpected(request: &str, done: &Done) -> Failure {
    Failure::Other(format!("control protocol: the daemon answered {request} with {done:?}"))
}
