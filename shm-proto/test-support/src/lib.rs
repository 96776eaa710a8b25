//! What the tests of all packages share. No program contains any of this.
//!
//! A test waits for conditions and never for a time to pass. Whatever a test starts or makes has a guard that ends or removes
//! it when the test fails, and a failure shows what every program involved has printed. Each test has a directory, a runtime
//! directory and object names of its own.
//!
//! The library's own unit tests use this package too, and there the package's copy of the library is not the one under test. They
//! therefore take only what mentions no type of the library.
// Each item is described where its name does not say enough.
#![allow(missing_docs, missing_debug_implementations)]

mod c;
mod channel;
mod daemon;
mod dir;
mod fork;
mod handoff;
mod lease;
mod object;
mod place;
mod process;
mod schema;
mod seccomp;
mod step;
mod terminal;
mod user;
mod wait;

pub use self::{
    c::compile,
    channel::{channel, pair},
    daemon::{Daemon, Setup},
    dir::{TempDir, unique},
    fork::{Child, as_nobody, in_child, in_child_of_nobody},
    handoff::{Handoff, Peer, pattern},
    lease::{is_leased, leased},
    object::{Object, memory},
    place::{Place, shared_memory},
    process::{Proc, Run, catches, clean, program},
    schema::Schema,
    seccomp::{Filter, has_membarrier, without_membarrier},
    step::{here, killed_after, killed_after_and, skip_without_trace},
    terminal::{Screen, Terminal},
    user::{NOBODY, User, may_change_user, skip, skip_without_root},
    wait::{PATIENCE, Raise, heavy, joined, soon, wait_for, wait_until},
};
