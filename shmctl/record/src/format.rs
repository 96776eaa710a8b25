//! MCAP files: <https://mcap.dev/spec>.

pub(crate) mod contents;
pub(crate) mod encode;
pub(crate) mod input;
pub(crate) mod memory;
pub(crate) mod notes;
pub(crate) mod packing;
pub(crate) mod scan;
