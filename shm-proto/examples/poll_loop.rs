//! A reader beside standard input and a timer in one poll loop: no second thread, nothing that spins.
//!
//! ```text
//! shmd &
//! cargo run -p shm-proto --example poll_loop          # the only channel; a line of input shows the last message
//! cargo run -p shm-proto --example poll_loop -- imu   # channel imu
//! seq 1000000 | shmctl write                          # in another terminal
//! ```

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_proto::{Endpoint, Reader, ReaderError, Start};

/// How often the rate is shown.
const TICK: Duration = Duration::from_secs(1);
/// Messages taken before the other descriptors get their turn.
const AT_ONCE: usize = 1000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("poll_loop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let channel = std::env::args().nth(1);
    let mut reader = Reader::attach(&Endpoint::find(None), channel.as_deref(), Start::New)?;
    let mut input = Some(File::from(std::io::stdin().as_fd().try_clone_to_owned()?));
    let mut last = Vec::new();
    let mut shown = 0;
    let mut next_tick = Instant::now() + TICK;
    println!("reading channel {}; Enter shows the last message, q and Enter ends", reader.geometry().channel);

    loop {
        // True: nothing is there, and the reader's descriptor becomes readable when there is. False: receive first, sleep later.
        let sleeps = reader.arm()?;
        let timeout = if sleeps { next_tick.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
        let typed = wait(&reader, input.as_ref(), timeout)?;
        let mut batch = reader.batch(AT_ONCE);
        loop {
            match batch.next() {
                Ok(Some(message)) => message.copy_to_vec(&mut last),
                Ok(None) => break,
                Err(ReaderError::Closed { channel }) => {
                    println!("channel {channel} was closed");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        drop(batch);
        if typed && let Some(file) = &mut input {
            let mut text = [0; 256];
            match file.read(&mut text)? {
                0 => input = None,
                n if text[..n].starts_with(b"q") => return Ok(()),
                _ => println!("the last message has {} bytes: {:?}", last.len(), String::from_utf8_lossy(&last)),
            }
        }
        let now = Instant::now();
        if now >= next_tick {
            if reader.received() > shown {
                println!("{} messages in the last second, {} in all", reader.received() - shown, reader.received());
            }
            shown = reader.received();
            next_tick = now + TICK;
        }
    }
}

/// Sleeps until something happens; returns whether there is input.
fn wait(reader: &Reader, input: Option<&File>, timeout: Duration) -> Result<bool, Errno> {
    // Rounded up, or the last fraction of a millisecond would be spent spinning.
    let timeout = PollTimeout::try_from(timeout + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let mut fds = vec![PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    fds.extend(input.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno),
    }
    Ok(fds.get(1).is_some_and(|typed| typed.any().unwrap_or(true)))
}
