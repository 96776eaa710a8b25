//! What the library asks of the operating system: nearly all `unsafe` code is here, each block with its reason.
//!
//! | module | what it is |
//! |---|---|
//! | [`clock`] | `CLOCK_MONOTONIC` in nanoseconds |
//! | [`barrier`] | a memory barrier that only one side pays for |
//! | [`sem`] | process-shared semaphores with bounded waits, safe against a hostile peer |
//! | [`named_sem`] | POSIX named semaphores |
//! | [`mutex`] | a `pthread_mutex_t` between processes, robust |
//! | [`map`] | mappings of shared memory, made once at their largest size |
//! | [`page`] | the sealed one-page memfds between two processes |
//! | [`sealed`] | bytes in a memfd that nobody can change any more |
//! | [`bell`] | wakes a sleeper that waits in a poll loop |
//! | [`closing`] | closing what a peer has sent, without waiting for it |
//! | [`shm`] | POSIX shared memory objects |
//! | `file_lease` | whether anybody else has a file open |
//! | [`file_lock`] | locks that say which process owns an object or writes to it |
//! | [`socket_name`] | whether a process still has the socket of a name |
//! | [`remove`] | removing a name that may become another file's at the same moment |
//! | [`memory`] | how much memory there is before it is taken |
//! | [`reserve`] | puts memory behind an object before anyone touches it |
//! | [`peer`] | who is at the other end of a Unix socket |
//! | [`process`] | facts about a process, for display and for telling a dead owner from a living one |
//! | [`child`] | a child process that does not outlive its parent |
//! | [`inherited`] | descriptors that a process leaves to itself across `execve`, and those that systemd hands over |
//! | [`prefetch`] | asking for cache lines before they are read |
//! | [`service_manager`] | telling systemd how a service is doing |
//! | [`unread`] | the bytes that a socket, a pipe or a peer has not read yet |
//! | [`file_id`] | which file it is, whatever its name |
//! | [`poll`] | waiting until a descriptor is ready |
//! | [`fds`] | bytes and descriptors over a Unix socket |
//! | [`hang_up`](mod@hang_up) | ending a connection in which a peer's descriptors may lie |
//! | [`random`] | a number nobody can guess |
//!
//! Every descriptor made here is close-on-exec, except those that [`inherited`] is to leave open.

pub mod barrier;
pub mod bell;
pub mod child;
pub mod clock;
pub mod closing;
pub mod fds;
pub mod file_id;
mod file_lease;
pub mod file_lock;
pub mod hang_up;
pub mod inherited;
pub mod map;
pub mod memory;
pub mod mutex;
pub mod named_sem;
pub mod page;
pub mod peer;
pub mod poll;
pub mod prefetch;
pub mod process;
pub mod random;
pub mod remove;
pub mod reserve;
pub mod sealed;
pub mod sem;
pub mod service_manager;
pub mod shm;
pub mod socket_name;
pub mod unread;

use nix::errno::Errno;

/// Calls again while a signal interrupts the call.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
