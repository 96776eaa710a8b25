//! What the programs that `shmctl` finds beside itself share with it: the options of every command, how they report, and how
//! they end.

use std::process::ExitCode;

pub use shm_cli::nearest;
use shm_proto::ChannelName;

pub use crate::error::{Failure, Result, note};
pub use crate::global::Global;
pub use crate::human;
pub use crate::output::{has_news, wait_for};
pub use crate::signals::Signals;
pub use crate::terminal::{Size, shortened, size};

/// Reports a failure, and gives the exit code. `channels`: those that the command is about.
#[must_use]
pub fn finish(result: Result<()>, channels: &[ChannelName]) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(channels);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Logs to standard error; `verbose` is how often `-v` was given.
pub fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new().filter_level(level).format_target(false).init();
}
