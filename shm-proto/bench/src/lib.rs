//! Everything that measures the ring, once.
//!
//! Two programs use this library. `shmctl bench` answers what a user asks about a host: throughput, latency, pipelines.
//! `shm-bench` is for developers: it lets one thing grow (`sweep`), compares other libraries (`peers`, a feature, because only
//! these developers should have to build them) and checks ratios for CI (`ratios`). Cargo runs the benches of the inner steps
//! and of the instructions of each message.
//!
//! A measurement goes through these modules, each of which knows only those above it in this table:
//!
//! | module | what it is |
//! |---|---|
//! | [`Failure`], [`stop`] | why a measurement ends early: an error, or the user's wish |
//! | [`host`], [`cpu`] | what the figures were measured on; the processor time that a process uses |
//! | [`plan`] | what is measured: a [`Case`](plan::Case) is data, made from a [`Wish`](plan::Wish) by a pure function |
//! | [`outcome`], [`figures`] | the median of several runs, as data and as text |
//! | [`job`] | what passes between the program and its workers: a [`Job`](job::Job) goes out, a [`Measured`](outcome::Measured) comes back |
//! | [`payload`], [`flow`] | what a message holds; when to send, what to check, when to read the clock |
//! | `slots` | fixed slots in shared memory: the least that passing messages on takes |
//! | `carrier` | one file for each thing that carries messages: a sender and a receiver that the flow drives |
//! | [`worker`] | a process of a measurement |
//! | [`crew`] | the worker processes: started, told to go, listened to, ended in any case |
//! | [`daemon`] | a `shmd` with a directory and object names of its own, or one that runs |
//! | [`pipeline`] | whole programs in a row |
//! | [`measure`] | runs cases and returns their [`Outcome`](outcome::Outcome)s |
//! | [`rate`] | looks for the highest rate at which times stay below a limit |
//!
//! A new carrier is a file in `carrier` that implements the flow's `Sender` and `Receiver`, a [`Transport`](plan::Transport),
//! and a line in `carrier::work`. The flow is generic over both traits, so that nothing stands between it and the carrier's own code.
//!
//! A program that uses this library starts itself again for each worker: its hidden command `bench-worker` takes
//! [`worker::Args`] and calls [`worker::run`].
#![allow(
    missing_docs,
    reason = "this library serves the two programs beside it, and names of fields say what they are"
)]

mod carrier;
pub mod cpu;
pub mod crew;
pub mod daemon;
mod failure;
pub mod figures;
pub mod flow;
pub mod host;
pub mod job;
pub mod measure;
pub mod outcome;
pub mod payload;
pub mod pipeline;
pub mod plan;
pub mod rate;
mod slots;
pub mod stop;
pub mod worker;

pub use self::failure::{Failure, Result};
