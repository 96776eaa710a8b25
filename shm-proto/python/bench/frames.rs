//! The Rust reader beside which the Python program measures: sums the words of frames that are there already.
//!
//! `frames CHANNEL COUNT` prints the nanoseconds per frame for the newest frames of a channel.

use std::hint::black_box;
use std::time::Instant;

use shm_proto::{Endpoint, Error, Reader, Start};

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let channel = args.next();
    let count: u32 = args.next().and_then(|count| count.parse().ok()).unwrap_or(1).max(1);
    let mut reader = Reader::attach(&Endpoint::find(None), channel.as_deref(), Start::Oldest)?;
    // Older frames may be there, too.
    let behind = Reader::attach(&Endpoint::find(None), channel.as_deref(), Start::New)?.seq();
    while reader.seq() + u64::from(count) < behind {
        reader.recv(None)?.finish()?;
    }
    let begun = Instant::now();
    for _ in 0..count {
        let frame = reader.recv(None)?;
        black_box(frame.words().fold(0u64, u64::wrapping_add));
        frame.finish()?;
    }
    println!("{}", begun.elapsed().as_nanos() / u128::from(count));
    Ok(())
}
