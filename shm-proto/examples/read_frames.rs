//! Reads large frames where they lie in the shared memory, without copying them out.
//!
//! ```text
//! shmd &
//! cargo run --release -p shm-proto --example read_frames              # every frame of the only channel
//! cargo run --release -p shm-proto --example read_frames -- 10 video  # ten frames of channel video
//! head -c 64M /dev/urandom | shmctl write --framing chunk=4MiB        # in another terminal
//! ```
//!
//! A writer may be hostile, and on an `overwrite` channel a frame may be overwritten while it is read: so a frame is
//! looked at through [`words`](shm_proto::Message::words), and [`finish`](shm_proto::Message::finish) says afterwards
//! whether what was seen can be believed.

use std::process::ExitCode;

use shm_proto::{Endpoint, Reader, ReaderError, Start};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("read_frames: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: u64 = match args.next() {
        None => u64::MAX,
        Some(text) => text.parse().map_err(|e| format!("{text:?} is not a number of frames: {e}"))?,
    };
    let channel = args.next();

    let mut reader = Reader::attach(&Endpoint::find(None), channel.as_deref(), Start::Oldest)?;
    for _ in 0..count {
        let frame = match reader.recv(None) {
            Ok(frame) => frame,
            Err(ReaderError::Closed { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        let (seq, len, missed) = (frame.seq(), frame.len(), frame.lost_before());
        // Words are loaded one by one from the shared memory; nothing of the frame is kept but the sum.
        let sum = frame.words().fold(0u64, |sum, word| sum.rotate_left(5) ^ word);
        match frame.finish() {
            Ok(()) if missed > 0 => println!("frame {seq}: {len} bytes, sum {sum:016x}, {missed} lost before it"),
            Ok(()) => println!("frame {seq}: {len} bytes, sum {sum:016x}"),
            Err(ReaderError::Withdrawn { .. }) => {}
            Err(ReaderError::Lapped { lost, .. }) => {
                println!("frame {seq}: overwritten while it was read, {lost} lost")
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} frames received, {} lost", reader.received(), reader.lost());
    Ok(())
}
