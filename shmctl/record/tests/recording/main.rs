//! Recording and replay with whole programs: real daemons, real files. What is in a file is read with the crate `mcap`, which this
//! package uses only for the layout of records.

mod crafted;
mod create;
mod ends;
mod full;
mod interop;
mod kit;
mod losses;
mod memory;
mod recover;
mod replay;
mod replay_refusals;
mod round_trip;
mod split;
mod terminal;
mod usage;
