//! Signals for loops: those that end a command as a descriptor and a flag, and those that may come again and again.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::{Failure, Result};

/// Once this is made, the first of the signals is noted here and the second ends the process at once.
#[derive(Debug)]
pub struct Signals {
    pipe: UnixStream,
    came: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// SIGINT and SIGTERM.
    pub fn catch() -> Result<Self> {
        Self::of(&[SIGINT, SIGTERM])
    }

    /// The same, and SIGHUP and SIGQUIT, for a command that has to give the terminal back before it ends.
    pub fn catch_on_screen() -> Result<Self> {
        Self::of(&[SIGINT, SIGTERM, SIGHUP, SIGQUIT])
    }

    /// SIGINT, SIGTERM, and SIGHUP unless it is ignored, for a command that is to finish its work if its terminal goes. A further
    /// SIGHUP does not end the process: when a session is closed, the shell and the kernel may send one each.
    pub fn catch_with_hangup() -> Result<Self> {
        // `nohup` ignores it, so that the command goes on.
        if is_ignored(SIGHUP) { Self::catch() } else { Self::with_patience(&[SIGINT, SIGTERM, SIGHUP], &[SIGHUP]) }
    }

    fn of(signals: &[i32]) -> Result<Self> {
        Self::with_patience(signals, &[])
    }

    /// `patient`: those of the signals that never end the process at once.
    fn with_patience(signals: &[i32], patient: &[i32]) -> Result<Self> {
        let failed = failed_for(signals);
        let (pipe, writer) = UnixStream::pair().map_err(&failed)?;
        let (came, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for &signal in signals {
            // In this order: the default action only when an earlier signal has raised the flag.
            if !patient.contains(&signal) {
                flag::register_conditional_default(signal, Arc::clone(&came)).map_err(&failed)?;
            }
            flag::register_usize(signal, Arc::clone(&number), signal as usize).map_err(&failed)?;
            flag::register(signal, Arc::clone(&came)).map_err(&failed)?;
            low_level::pipe::register(signal, writer.try_clone().map_err(&failed)?).map_err(&failed)?;
        }
        Ok(Signals { pipe, came, number })
    }

    /// A flag that a signal raises.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.came)
    }

    /// The name of the signal that has arrived.
    pub fn name(&self) -> &'static str {
        // The number is stored before the flag is raised.
        low_level::signal_name(self.number.load(Ordering::Relaxed) as i32).unwrap_or("SIGINT")
    }

    /// Whether a signal has arrived.
    pub fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }
}

/// Readable from the first signal on.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Signals that end nothing: each arrival is noted, and taken once.
#[derive(Debug)]
pub(crate) struct Notes {
    pipe: UnixStream,
    flags: Vec<(i32, Arc<AtomicBool>)>,
}

impl Notes {
    /// Notes these signals from now on.
    pub(crate) fn catch(signals: &[i32]) -> Result<Self> {
        let failed = failed_for(signals);
        let (pipe, writer) = UnixStream::pair().map_err(&failed)?;
        pipe.set_nonblocking(true).map_err(&failed)?;
        let mut flags = Vec::new();
        for &signal in signals {
            let came = Arc::new(AtomicBool::new(false));
            flag::register(signal, Arc::clone(&came)).map_err(&failed)?;
            low_level::pipe::register(signal, writer.try_clone().map_err(&failed)?).map_err(&failed)?;
            flags.push((signal, came));
        }
        Ok(Notes { pipe, flags })
    }

    /// Those that have arrived since the last call.
    pub(crate) fn take(&self) -> Vec<i32> {
        // The pipe first: a signal that arrives meanwhile makes the pipe readable again.
        while (&self.pipe).read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
        let came = self.flags.iter().filter(|(_, came)| came.swap(false, Ordering::Relaxed));
        came.map(|(signal, _)| *signal).collect()
    }
}

/// Readable while there is a signal to take.
impl AsFd for Notes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Whether this process ignores a signal.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

fn failed_for(signals: &[i32]) -> impl Fn(std::io::Error) -> Failure {
    let names = signals.iter().filter_map(|signal| low_level::signal_name(*signal)).collect::<Vec<_>>().join(", ");
    move |e| Failure::Other(format!("cannot catch {names}: {e}"))
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGUSR1, SIGWINCH};

    use super::*;

    #[test]
    fn a_noted_signal_is_taken_once_and_may_come_again() {
        let notes = Notes::catch(&[SIGWINCH, SIGUSR1]).unwrap();
        assert_eq!(notes.take(), [0; 0]);
        for _ in 0..3 {
            low_level::raise(SIGWINCH).unwrap();
            low_level::raise(SIGWINCH).unwrap();
            assert_eq!(notes.take(), [SIGWINCH]);
            assert_eq!(notes.take(), [0; 0]);
        }
        low_level::raise(SIGUSR1).unwrap();
        assert_eq!(notes.take(), [SIGUSR1]);
    }

    #[test]
    fn a_second_hangup_does_not_end_the_process() {
        let signals = Signals::with_patience(&[SIGHUP], &[SIGHUP]).unwrap();
        assert!(!signals.came());
        for _ in 0..2 {
            low_level::raise(SIGHUP).unwrap();
            assert!(signals.came());
            assert_eq!(signals.name(), "SIGHUP");
        }
    }
}
