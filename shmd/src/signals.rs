//! Signals as descriptors in the one loop. Nothing is done in a handler but writing a byte.
//!
//! SIGPIPE needs nothing here: Rust's runtime ignores it from the start.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use shm_proto::internal::os::poll::readable;
use shm_proto::{Error, Result};
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

use crate::event_loop::{EventLoop, Interest, Token};
use crate::threads;

/// The signals that the daemon handles.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(i32, SigId, UnixStream)>);

impl Signals {
    /// Hears SIGTERM, SIGINT and SIGHUP from now on.
    ///
    /// # Errors
    /// When the system gives no descriptors.
    pub(crate) fn hear(events: &EventLoop) -> Result<Self> {
        let mut heard = Vec::new();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            let failed = |e| Error::system(format!("handle signal {signal}"), e);
            let (read, write) = UnixStream::pair().map_err(failed)?;
            read.set_nonblocking(true).map_err(failed)?;
            events.add(&read, Token::Signal(signal), Interest::READ)?;
            heard.push((signal, pipe::register(signal, write).map_err(failed)?, read));
        }
        Ok(Self(heard))
    }

    /// Whether a signal has arrived and was not taken.
    pub(crate) fn have_heard(&self) -> bool {
        let now = Some(std::time::Duration::ZERO);
        self.0.iter().any(|(.., pipe)| readable(pipe.as_fd(), now) != Ok(false))
    }

    /// Whether this signal has arrived since the last call.
    pub(crate) fn take(&mut self, signal: i32) -> bool {
        let Some((_, _, pipe)) = self.0.iter_mut().find(|(s, ..)| *s == signal) else { return false };
        let mut bytes = [0; 64];
        let mut heard = false;
        loop {
            match pipe.read(&mut bytes) {
                Ok(1..) => heard = true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return heard,
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (_, id, _) in &self.0 {
            unregister(*id);
        }
    }
}

/// Leaves signals to the next program in this process: the system keeps those that come from now on. Other threads do not take
/// them, see [`threads`](crate::threads).
///
/// # Errors
/// What the system says.
pub(crate) fn hold() -> Result<()> {
    threads::signals().thread_block().map_err(|e| Error::system("block signals", e))
}

/// Takes signals again, also those that the program before this one has [left](hold).
pub(crate) fn release() {
    // Fails only for a way to change the mask that does not exist.
    let _ = threads::signals().thread_unblock();
}

/// What people call a signal.
pub(crate) fn name(signal: i32) -> &'static str {
    match signal {
        SIGTERM => "SIGTERM",
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "a signal",
    }
}

/// Whether this signal ends the daemon.
pub(crate) fn ends(signal: i32) -> bool {
    matches!(signal, SIGTERM | SIGINT)
}
