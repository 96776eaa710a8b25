//! What a user may say to the daemon, as data: its options, the keys of its configuration and its exit codes. The daemon reads
//! them here. `shmctl` makes the manual pages and the completions of both programs from them, without containing the daemon. What
//! both programs ask of the environment in the same way is here, too.
#![forbid(unsafe_code)]

mod args;
mod colour;
mod exit_code;
pub mod keys;
mod similar;
mod variables;

pub use args::{Args, ChannelArgs, EXIT_CODES, everyday_keys};
pub use colour::colours_are_wanted;
pub use exit_code::{ExitCode, exit_codes};
pub use similar::{did_you_mean, nearest};
pub use variables::without_empty_variables;
