//! Fuzz targets: a function for each part of shmd that takes what a stranger wrote. See the README of this package.
//!
//! | target | what is hostile | what is checked besides "no panic, no fault, no endless loop" |
//! |---|---|---|
//! | `chain` | a segment that a lent writer has written over | what a walk finds whole, a reader receives whole |
//! | `geometry` | the facts of a channel, and a header that agrees with them | what a writer publishes, a reader receives |
//! | `adoption` | a segment that a dead daemon has left | an adopted segment can be read to its end and written on |
//! | `resume` | everything that clients send to a whole daemon: requests, descriptors, pages | every answer is one; nothing is left of a client that has gone, not a descriptor |
//! | `control` | lines in both directions, however they arrive | what is understood is written and understood again, and is the same |
//! | `configuration` | a file, and a key on the command line | what `--check` shows is a configuration, the same one |
//! | `framing` | the bytes of a source, however they arrive | the messages are the same, however they arrive |

mod bytes;
mod mutate;
mod ring;
mod scratch;
mod targets;

pub use mutate::Mutator;
pub use targets::{TARGETS, Target, find};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The inputs that are kept for a target, in the order of their names.
///
/// # Errors
/// When they cannot be read.
pub fn corpus(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    files.iter().map(fs::read).collect()
}
