//! The ring: one writer, many readers, no lock.
//!
//! | module | what it is |
//! |---|---|
//! | [`layout`] | the bytes in shared memory |
//! | `record` | the 8-byte record header |
//! | `commit`, `wake` | the lock-free steps, generic so that loom checks the code that runs |
//! | `plan` | where the next record goes: pure |
//! | `writer`, `reader` | the two roles |
//! | [`link`] | what passes between writer and daemon |
//! | `inspect` | what the daemon sees without mapping the segment |

#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
pub mod link;
