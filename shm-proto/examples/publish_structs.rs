//! Borrows the writer role of a channel and publishes fixed structs, a sensor's samples, without `unsafe`.
//!
//! ```text
//! shmd &
//! cargo run -p shm-proto --example publish_structs            # 500 samples in 5 s, into the only channel
//! cargo run -p shm-proto --example publish_structs -- 20 imu  # 20 samples into channel imu
//! shmctl read --from oldest --format hex                      # in another terminal
//! ```
//!
//! A C program reads the same bytes as `struct { uint64_t time_ns; uint32_t sensor; uint32_t number; double value; }`.

use std::mem::{offset_of, size_of};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use shm_proto::{Endpoint, Writer};

/// What is published. `repr(C)` fixes the places of the fields for readers in other languages.
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

// No padding: every byte of the message is one of a field.
const _: () = assert!(size_of::<Sample>() == 24 && offset_of!(Sample, value) == 16);

impl Sample {
    /// Writes the sample as it lies in memory on a little-endian machine. `out` has `size_of::<Sample>()` bytes.
    fn write_to(&self, out: &mut [u8]) {
        out[offset_of!(Sample, time_ns)..][..8].copy_from_slice(&self.time_ns.to_le_bytes());
        out[offset_of!(Sample, sensor)..][..4].copy_from_slice(&self.sensor.to_le_bytes());
        out[offset_of!(Sample, number)..][..4].copy_from_slice(&self.number.to_le_bytes());
        out[offset_of!(Sample, value)..][..8].copy_from_slice(&self.value.to_le_bytes());
    }
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
        // The slot is the shared memory itself: the sample is written there, and visible to readers at the commit.
        match writer.reserve(size_of::<Sample>())? {
            Some(mut slot) => {
                sample.write_to(&mut slot);
                slot.commit(size_of::<Sample>())?;
            }
            None => dropped += 1,
        }
        // A publish also hears what the daemon has to say. A program that rests for longer than this calls `maintain()`
        // about once a second, or waits on `link_fd()`.
        sleep(Duration::from_millis(10));
    }
    println!("published {} samples of {} bytes, {dropped} dropped", count - dropped, size_of::<Sample>());
    Ok(())
}
