//! The handoff protocol: one message at a time from a writer (A) to a reader (B), each acknowledged before the next.
//!
//! C programs speak it with no more than `shm_open`, `pthread_mutex_lock` and `sem_wait`:
//!
//! | object | holds |
//! |---|---|
//! | segment, `/NAME` | [`Header`](layout::Header): mutex, `capacity`, `data_size`, `ready_flag`; then the message |
//! | semaphore `avail` | posted by the writer for every message |
//! | semaphore `done` | posted by the reader for every message that it has read |
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
//! Both sides need write access to all three objects, and the C library trusts what is in them. So every process with access to
//! the objects must be trusted: a peer that truncates the segment crashes the others with SIGBUS, and a peer that overwrites
//! the mutex can abort them. All peers run in one PID namespace, because the mutex knows its holder by thread number. For peers
//! that are not trusted, there is the [ring](crate::ring).
//!
//! # What happens when
//!
//! | | |
//! |---|---|
//! | a peer dies while it holds the mutex | the next peer that locks the mutex recovers it, and so does the one after, should that peer die during the recovery; counted |
//! | a peer releases the mutex without repairing it | the writer initialises the mutex again; counted |
//! | a peer is stopped while it holds the mutex | the call of the other side ends with [`HandoffError::Locked`], naming the holder |
//! | a reader takes `avail` and never posts `done` | the message is offered again `ack_timeout` after that, or up to a quarter later; or it is dropped `ack_timeout` after it was offered; counted |
//! | no reader takes `avail` | the message stays on offer; if the policy is to drop, it is withdrawn after `ack_timeout` |
//! | a reader is merely slow | after `ack_timeout` the message is offered again: it may be read twice, never lost |
//! | two readers | each message goes to one of them. After a growth, only the reader of the next message has remapped, so there must be only one C reader at a time |
//! | `done` posted too often | a `done` while `ready_flag` is still 1 acknowledges nothing; counted |
//! | `avail` posted too often, or left over | taken away before the next message; a reader ignores an `avail` while `ready_flag` is 0 |
//! | the semaphores' names vanish, or lead to new ones | the reader notices within a quarter of a second, and closes, or opens the new ones |
//! | a stale object | of this protocol and this user: adopted or replaced. In use, or another user's: refused |
//!
//! # Sizes
//! `capacity` is the length of the whole object that readers have been told. C programs subtract the
//! [size](layout::HEADER_SIZE) of their header, although data starts 4 bytes before the header's end. So a message of `n` bytes
//! needs a capacity of `n + 64` on x86-64 and `n + 72` on 64-bit Arm.
//!
//! A reader in C remaps if the file is longer than `capacity`, and then unmaps `capacity` bytes. So the writer makes the file
//! longer first, leaves `capacity` alone until the next message has been acknowledged, and only then stores the new capacity.
//! This library maps only the header, one page that never moves. It copies messages with `pread` and `pwrite`, which cannot
//! fault, whatever the length says and however the file was cut.

mod access;
mod error;
pub mod layout;
mod names;
mod objects;
mod reader;
mod watch;
mod writer;

pub use access::Access;
pub use error::{BadObjectName, HandoffError};
pub use names::Names;
pub use reader::{Reader, Received, WriterSign};
pub use watch::SignOfLife;
pub use writer::{Counters, Entry, Journal, Origin, Progress, Resized, Settings, Stage, TakenUp, Waker, Writer};
