//! What else a daemon that died leaves to the next one.

mod campaign;
mod coming;
mod dead;
mod evicted;
mod fifo;
pub(crate) mod handoff;
mod log;
mod size;
mod tail;
