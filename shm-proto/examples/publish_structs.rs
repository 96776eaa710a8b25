//! Borrows the writer role of a channel and publishes fixed structs, a sensor's samples, without `unsafe`.
//!
//! ```text
//! shmd &
//! cargo run -p shm-proto --example publish_structs --features zerocopy            # 500 samples in 5 s, into the only channel
//! cargo run -p shm-proto --example publish_structs --features zerocopy -- 20 imu  # 20 samples into channel imu
//! shmctl read --from oldest --format hex                      # in another terminal
//! ```
//!
//! A C program reads the same bytes as `struct { uint64_t time_ns; uint32_t sensor; uint32_t number; double value; }`.

use std::mem::size_of;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shm_proto::{Endpoint, Writer};
use zerocopy::{Immutable, IntoBytes};

/// What is published. `repr(C)` fixes the places of the fields for readers in other languages. With padding between the fields,
/// `IntoBytes` would not compile.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Sample {
    /// Nanoseconds since the program's start.
    time_ns: u64,
    /// Which sensor.
    sensor: u32,
    /// Counted from 0.
    number: u32,
    /// The measured value.
    value: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("publish_structs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let count: u32 = match args.next() {
        None => 500,
        Some(text) => text.parse().map_err(|e| format!("{text:?} is not a number of samples: {e}"))?,
    };
    let channel = args.next();

    let mut writer = Writer::attach(&Endpoint::find(None), channel.as_deref())?;
    let start = Instant::now();
    let mut dropped = 0;
    for number in 0..count {
        let time = start.elapsed();
        let sample =
            Sample { time_ns: time.as_nanos() as u64, sensor: 1, number, value: (time.as_secs_f64() * 2.0).sin() };
        // The sample's bytes are copied once, into the shared memory. `reserve` and `Slot::as_value_mut` spare this copy.
        if writer.publish_value(&sample)?.is_none() {
            dropped += 1;
        }
        // A publish also hears what the daemon has to say. A program that rests for longer than this calls `maintain()`
        // about once a second, or waits on `link_fd()`.
        sleep(Duration::from_millis(10));
    }
    println!("published {} samples of {} bytes, {dropped} dropped", count - dropped, size_of::<Sample>());
    Ok(())
}
