//! What else a daemon that died leaves to the next one.

mod evicted;
mod handoff;
mod log;
mod size;
mod tail;
