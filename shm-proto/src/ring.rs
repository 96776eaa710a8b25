//! The ring: one writer, many readers, no lock.
//!
//! | module | what it is |
//! |---|---|
//! | [`layout`] | the bytes in shared memory |
//! | [`geometry`] | what a channel is: sizes, policies |
//! | [`content`] | what its messages are: encoding, schema |
//! | [`record`] | the 8-byte header in front of every message |
//! | `commit`, `published`, `floor`, [`wake`], `holder` | the lock-free steps, generic so that loom checks the code that runs |
//! | `plan`, `marks`, `walker` | where the next record goes: pure |
//! | `segment` | a mapped segment, and how one is made |
//! | `writer`, `reader` | the two roles |
//! | `typed` | messages that are plain data, with feature `zerocopy` |
//! | [`delays`] | how long messages took, in buckets |
//! | [`standstill`] | when a reader that holds the writer up is asked for its cursor, and when it is evicted: pure |
//! | `spin` | how long they look before they sleep |
//! | [`link`] | what passes between writer and daemon |
//! | [`thread_link`] | the writer's end of a link inside one process |
//! | `inspect`, `chain`, `segment_file` | what the daemon sees without mapping the segment: the header, the records, single words |

#[cfg(not(loom))]
mod chain;
mod commit;
#[cfg(not(loom))]
pub mod content;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
pub mod delays;
mod floor;
#[cfg(not(loom))]
pub mod geometry;
mod holder;
#[cfg(not(loom))]
mod inspect;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod link;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(not(loom))]
mod marks;
#[cfg(not(loom))]
mod notes;
mod plan;
mod published;
#[cfg(not(loom))]
mod reader;
pub mod record;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod segment_file;
#[cfg(not(loom))]
mod spin;
#[cfg(not(loom))]
pub mod standstill;
#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(not(loom))]
pub mod thread_link;
#[cfg(all(feature = "zerocopy", not(loom)))]
mod typed;
#[cfg(not(loom))]
mod wait_strategy;
pub mod wake;
#[cfg(not(loom))]
mod walker;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use self::{
    chain::{Walk, WalkFrom, Walked, misplaced},
    inspect::{Snapshot, publish_time},
    notes::{
        HandoffNote, NotedReader, NotedReaders, SizeNote, SourceNote, copy_notes, note_handoff, note_readers,
        note_size, note_source, note_unnamed, noted_handoff, noted_readers, noted_size, noted_source, noted_unnamed,
    },
    reader::{Batch as ReadBatch, Message, Messages, OwnedMessage, Reader, ReaderError, Ready, Received, Views, Words},
    segment::{Beginning, Owner, begin_segment, create_segment, own_segment},
    wait_strategy::{BadWaitStrategy, WaitStrategy},
    writer::{Batch, HeldSlot, Slot, Writer, WriterError},
};
