//! SIGINT and SIGTERM as a descriptor for poll loops and a flag for busy loops.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::{Failure, Result};

/// Once this is made, the first SIGINT or SIGTERM is noted here and the second ends the process at once.
#[derive(Debug)]
pub(crate) struct Signals {
    pipe: UnixStream,
    came: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    pub(crate) fn catch() -> Result<Self> {
        let failed = |e: std::io::Error| Failure::Other(format!("cannot catch SIGINT and SIGTERM: {e}"));
        let (pipe, writer) = UnixStream::pair().map_err(failed)?;
        let (came, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the default action only when an earlier signal has raised the flag.
            flag::register_conditional_default(signal, Arc::clone(&came)).map_err(failed)?;
            flag::register_usize(signal, Arc::clone(&number), signal as usize).map_err(failed)?;
            flag::register(signal, Arc::clone(&came)).map_err(failed)?;
            low_level::pipe::register(signal, writer.try_clone().map_err(failed)?).map_err(failed)?;
        }
        Ok(Signals { pipe, came, number })
    }

    /// A flag that a signal raises.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.came)
    }

    /// The name of the signal that has arrived.
    pub(crate) fn name(&self) -> &'static str {
        // The number is stored before the flag is raised.
        if self.number.load(Ordering::Relaxed) == SIGTERM as usize { "SIGTERM" } else { "SIGINT" }
    }

    /// Whether a signal has arrived.
    pub(crate) fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }
}

/// Readable from the first signal on.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
