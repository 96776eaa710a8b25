//! The library in tasks of a tokio runtime, against the real daemon: `cargo test --workspace`, which builds the daemon, and then
//! `cargo test -p shm-proto --features tokio --test tokio`.

mod following;
mod manual;
mod publishing;
mod receiving;

use std::future::Future;
use std::thread;

use shm_test_support::joined;

/// Runs a future to its end on a runtime with a single thread, so that whatever blocks that thread blocks everything.
#[track_caller]
fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    joined(thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        runtime.block_on(future)
    }))
}

/// The payload of message `seq`: its number, and as many bytes as make the length odd from time to time.
fn payload(seq: u64) -> Vec<u8> {
    let mut bytes = seq.to_le_bytes().to_vec();
    bytes.resize(8 + (seq % 500) as usize, seq as u8);
    bytes
}
