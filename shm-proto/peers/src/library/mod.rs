//! What each library is made to do, by the same two roles.

pub mod iceoryx2;
pub mod pipe;
pub mod ringfire;
pub mod shm_proto;

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::case::Job;

/// What a reader has seen of a message: all of its bytes, as the sum of their words, and the second word.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub sum: u64,
    pub time: u64,
}

/// The writer's side. It writes every byte of every message, and waits for readers when there is no room.
pub trait Send {
    /// Once all readers are there.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn send(&mut self, number: u64, time: u64) -> Result<()>;

    /// Sends so many messages together.
    fn send_batch(&mut self, first: u64, count: usize) -> Result<()>;
}

/// A reader's side. It looks at every byte of every message where the library shows it.
pub trait Receive {
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// Waits for a message; shows it, and others that are there already where messages are received together.
    fn each(&mut self, see: impl FnMut(Received) -> Result<()>) -> Result<()>;
}

/// A library's two sides, for messages of `B` bytes. `channel` is 0 for messages, 1 for answers.
pub trait Peer {
    /// Makes what the messages go through, for so many readers.
    fn sender<const B: usize>(job: &Job, channel: usize, readers: u32) -> Result<impl Send>;

    /// Finds what a sender has made. `reader` is which one it is, from 0.
    fn receiver<const B: usize>(job: &Job, channel: usize, reader: u32) -> Result<impl Receive>;
}

/// Waits until so many readers are there.
fn await_readers(wanted: usize, there: impl Fn() -> usize) -> Result<()> {
    let begun = Instant::now();
    while there() < wanted {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(format!("{} of {wanted} readers have come", there()).into());
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}
