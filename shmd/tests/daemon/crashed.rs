//! What else a daemon that died leaves to the next one.

mod dead;
mod evicted;
mod handoff;
mod log;
mod size;
mod tail;
