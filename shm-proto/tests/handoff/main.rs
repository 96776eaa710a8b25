//! The handoff protocol with real processes in C as the other side.

mod deaths;
mod exchange;
mod layout;
mod objects;
mod steps;
mod watching;
