//! The harness: real programs, each test with a directory, a daemon and object names of its own.
//!
//! Nothing here waits for a time to pass: conditions are waited for, and a guard ends what would hang. A failure shows
//! what every program involved has said.

mod daemon;
mod other_user;
mod place;
mod process;
mod programs;
mod sandbox;
mod terminal;
mod wait;

pub(crate) use self::{
    daemon::{Daemon, Setup},
    other_user::{User, skip, skip_without_root},
    place::{Place, shared_memory},
    process::{Proc, Run, clean},
    programs::{shmctl, shmd},
    sandbox::{has_membarrier, without_membarrier},
    terminal::{Screen, Terminal},
    wait::{PATIENCE, Raise, heavy, wait_for, wait_until},
};
