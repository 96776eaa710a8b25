//! Shared-memory messaging for one Linux host: the library behind `shmd` and `shmctl`.
#[cfg(not(loom))]
pub mod control;
pub mod error;
pub mod name;
pub mod ring;
pub mod size;
pub mod stat;

pub use error::{Error, Result};
pub use name::{ChannelName, Prefix};
pub use size::Bytes;
