//! The handoff protocol: one message at a time from a writer (A) to a reader (B), each acknowledged before the next.
//!
//! It is spoken by C programs with `shm_open`, `pthread_mutex_lock` and `sem_wait` alone:
//!
//! | object | holds |
//! |---|---|
//! | segment, `/NAME` | [`Header`](layout::Header): mutex, `capacity`, `data_size`, `ready_flag`; then the message |
//! | semaphore `avail` | posted by the writer for every message |
//! | semaphore `done` | posted by the reader when it has read it |
//!
//! ```text
//! writer                                          reader
//!   lock; grow, copy, data_size, ready_flag = 1
//!   unlock; post avail  ------------------------>  wait avail
//!                                                  lock; remap if grown, copy, ready_flag = 0
//!   wait done           <------------------------  unlock; post done
//! ```
//!
//! # Trust
//! Both sides need write access to all three objects, and the C library trusts what is in them. Everybody with access to
//! the objects is a trusted peer: who cuts the segment short ends the others with SIGBUS, who scribbles over the mutex can
//! abort them. All of them run in one PID namespace, because the mutex knows its holder by thread number. For peers that
//! are not trusted there is the [ring](crate::ring).
//!
//! # What happens when
//!
//! | | |
//! |---|---|
//! | a peer dies inside the mutex | the next one to lock recovers it, also when that one dies during the recovery; counted |
//! | a careless peer releases it without repair | the writer initialises it anew; counted |
//! | a peer is stopped inside the mutex | the other's call ends with [`HandoffError::Locked`], naming the holder |
//! | a reader takes `avail` and never posts `done` | after `ack_timeout` the message is offered again, or dropped; counted |
//! | nobody takes `avail` | the message stays on offer; with a policy of dropping it is withdrawn after `ack_timeout` |
//! | a reader is merely slow | after `ack_timeout` the message is offered again: it may be read twice, never lost |
//! | two readers | each message goes to one of them. After a growth only the one that read the next message has remapped: C readers go one at a time |
//! | `done` posted too often | a `done` while `ready_flag` is still 1 acknowledges nothing; counted |
//! | `avail` posted too often, left-over counts | taken away before the next message; a reader passes over an `avail` with `ready_flag` 0 |
//! | the semaphores' names vanish, or lead to new ones | the reader notices within a quarter of a second: closed, or opened anew |
//! | a stale object | of this protocol and this user: adopted or replaced. In use, or another user's: refused |
//!
//! # Sizes
//! `capacity` is the whole object's length as far as readers have been told. C programs take their header's
//! [size](layout::HEADER_SIZE) off it, though data starts 4 bytes before its end, so a message of `n` bytes needs a capacity of
//! `n + 64` on x86-64 and `n + 72` on 64-bit Arm.
//!
//! A reader in C remaps when the file is longer than `capacity`, and unmaps `capacity` bytes. So the writer makes the file
//! longer first, leaves `capacity` alone until the first message after that has been acknowledged, and only then says the
//! new one. Here only the header is mapped, one page that never moves; messages are copied by `pread` and `pwrite`, which
//! no length and no cut file can turn into a fault.

mod access;
mod error;
pub mod layout;
mod names;
mod objects;
mod reader;
mod writer;

pub use access::Access;
pub use error::{BadObjectName, HandoffError};
pub use names::Names;
pub use reader::{Reader, Received, WriterSign};
pub use writer::{Counters, Origin, Progress, Resized, Settings, Waker, Writer};
